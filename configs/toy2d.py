"""Points of the plane, whose density is known.

python -m vaebm_jax.main --config=configs/toy2d.py --workdir=runs/toy2d
"""

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    names = ('ring', 'two_moons', 'checkerboard')
    return c.choose(
        variant,
        default=eight_gaussians(),
        eight_gaussians=eight_gaussians(),
        **{name: toy(name) for name in names},
    )


def eight_gaussians() -> c.Config:
    return toy('eight_gaussians')


def toy(name: str) -> c.Config:
    hidden = (('dense', 64), ('dense', 64))
    return c.Config(
        name='toy2d' if name == 'eight_gaussians' else f'toy2d_{name}',
        num_steps=2500,
        batch_size=256,
        latent_dim=2,
        log_every=100,
        sample_every=500,
        checkpoint_every=250,
        keep_checkpoints=0,
        steps_per_call=50,
        data=c.DataConfig(name=name, image_size=1, num_channels=2),
        langevin=c.LangevinConfig(num_steps=60, step_size=0.2),
        energy=c.EnergyConfig(reference_std=1.5, learning_rate=2e-3),
        vae=c.VAEConfig(learning_rate=3e-3, kl_weight=0.03, adam_b1=0.9),
        network=c.NetworkConfig(
            energy=hidden,
            encoder=hidden,
            decoder=hidden,
            activation='silu',
            decoder_output='linear',
        ),
        schedule=c.ScheduleConfig(name='linear', decay_share=0.5, final_share=0.02),
    )
