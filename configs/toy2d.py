"""Points of the plane, whose density is known.

python -m vaebm_jax.main --config=configs/toy2d.py --workdir=runs/toy2d
"""

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
    return toy('eight_gaussians', 3500, langevin, kl_weight=0.03)


def ring() -> c.Config:
    return toy('ring', 2500, c.LangevinConfig(num_steps=60, step_size=0.1), kl_weight=0.01)


def two_moons() -> c.Config:
    return toy('two_moons', 4000, c.LangevinConfig(num_steps=60, step_size=0.1), kl_weight=0.01)


def checkerboard() -> c.Config:
    return toy('checkerboard', 4000, c.LangevinConfig(num_steps=60, step_size=0.1), kl_weight=0.02)


def toy(name: str, num_steps: int, langevin: c.LangevinConfig, kl_weight: float) -> c.Config:
    """What the four have in common; points have units of their own, and so an unbounded decoder."""
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
        ema_decay=0.999,
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
        schedule=c.ScheduleConfig(name='linear', decay_share=0.8, final_share=0.005),
    )
