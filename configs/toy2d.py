"""Points of the plane with a known density, with which the learned energy is compared.

    python -m vaebm_jax.main --config=configs/toy2d.py --workdir=runs/toy2d
    python -m vaebm_jax.main --workdir=runs/toy2d --mode=evaluate
    python -m vaebm_jax.main --workdir=runs/toy2d --mode=geometry

Eight Gaussians (radius 2, standard deviation 0.3); `:ring`, `:two_moons` and `:checkerboard` are
the variants. Three dense networks of two hidden layers of 64, and the `train_step` of images.

The worst of three seeds, jax 0.10.2; CPU time of the training (two cores of an AMD EPYC, AVX2):

| variant      | steps | CPU   | KL(data, p)   | mode weights of p | 50,000 refined | ancestral    |
|--------------|-------|-------|---------------|-------------------|----------------|--------------|
|              | 3,500 | 60 s  | 0.027 nats    | 0.88 to 1.17      | 0.978 to 1.029 | 0.84 to 1.12 |
| ring         | 2,500 | 40 s  | 0.008         | 0.95 to 1.04      | 0.961 to 1.023 | 0.87 to 1.12 |
| two_moons    | 4,000 | 72 s  | 0.032         | 0.98 to 1.02      | 0.994 to 1.006 | 0.99 to 1.01 |
| checkerboard | 4,000 | 89 s  | 0.22 (seed 0) | 0.80 to 1.41      | 0.961 to 1.037 | 0.82 to 1.19 |

Weights are divided by the true ones; the ring's modes are its eighths.

Healthy: `rate` near 4.5 nats, a gap between the two energies of less than 0.2, both fluctuating.

`docs/geometry.md` shows the training step by step and where measurements differ from the theory.
"""

import dataclasses

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    return c.choose(
        variant,
        default=eight_gaussians(),
        ring=ring(),
        two_moons=two_moons(),
        checkerboard=checkerboard(),
    )


def eight_gaussians() -> c.Config:
    """Long chains of large steps, so that they cross from one Gaussian to the next."""
    langevin = c.LangevinConfig(num_steps=100, step_size=0.18)
    config = toy('eight_gaussians', 3500, langevin, kl_weight=0.03)
    schedule = dataclasses.replace(config.schedule, final_share=0.005)
    return dataclasses.replace(config, ema_decay=0.999, schedule=schedule)


def ring() -> c.Config:
    """With a kl_weight of 0.01 one seed in three has a decoder folded into lines."""
    return toy('ring', 2500, c.LangevinConfig(num_steps=80, step_size=0.12), kl_weight=0.03)


def two_moons() -> c.Config:
    """With T δ² = 0.6, in place of 2.25, chains hardly cross: one moon got three times its mass."""
    return toy('two_moons', 4000, c.LangevinConfig(num_steps=100, step_size=0.15), kl_weight=0.01)


def checkerboard() -> c.Config:
    """Small steps, whose noise blurs the edges of the squares less."""
    langevin = c.LangevinConfig(num_steps=150, step_size=0.09)
    config = toy('checkerboard', 4000, langevin, kl_weight=0.02)
    return dataclasses.replace(
        config,
        energy=dataclasses.replace(config.energy, learning_rate=5e-3),
        schedule=dataclasses.replace(config.schedule, decay_share=0.9),
    )


def toy(name: str, num_steps: int, langevin: c.LangevinConfig, kl_weight: float) -> c.Config:
    """The common settings; points are not bounded, so the decoder has no tanh."""
    hidden = (('dense', 64), ('dense', 64))
    return c.Config(
        name='toy2d' if name == 'eight_gaussians' else f'toy2d_{name}',
        num_steps=num_steps,
        batch_size=256,
        latent_dim=2,
        log_every=250,
        sample_every=1000,
        checkpoint_every=250,
        keep_checkpoints=0,  # All: --mode=geometry measures each.
        steps_per_call=50,
        ema_decay=0.998,
        data=c.DataConfig(name=name, image_size=1, num_channels=2),
        langevin=langevin,
        energy=c.EnergyConfig(reference_std=1.5, learning_rate=3e-3),
        vae=c.VAEConfig(learning_rate=3e-3, kl_weight=kl_weight, adam_b1=0.9),
        network=c.NetworkConfig(
            energy=hidden,
            encoder=hidden,
            decoder=hidden,
            activation='silu',
            decoder_output='linear',
        ),
        schedule=c.ScheduleConfig(name='linear', decay_share=0.8, final_share=0.01),
    )
