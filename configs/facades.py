"""CMP Facades: recover the middle of a photograph from what is around it.

python -m vaebm_jax.main --config=configs/facades.py:64 --workdir=runs/facades_64
"""

import dataclasses

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    variants = {'128': of_128_pixels(), '64': of_64_pixels()}
    return c.choose(variant, default=of_256_pixels(), **variants)


def of_64_pixels() -> c.Config:
    """For two CPU cores."""
    return c.Config(
        name='facades_64',
        num_steps=1500,
        warmup_steps=1200,
        batch_size=16,
        latent_dim=16,
        log_every=50,
        sample_every=500,
        checkpoint_every=500,
        ema_decay=0.99,
        data=c.DataConfig(name='facades', image_size=64, load_size=72, num_channels=3, flip=True),
        condition=c.ConditionConfig('center_hole', jitter=0.1, profiles=0.75),
        langevin=c.LangevinConfig(num_steps=10, step_size=0.003),
        energy=c.EnergyConfig(learning_rate=2e-4),
        vae=c.VAEConfig(
            learning_rate=5e-4, kl_weight=1.0, adam_b1=0.9, truth_weight=1.0, guess_weight=1.0
        ),
        network=c.recovery_network(64),
    )


def of_128_pixels() -> c.Config:
    """For a GPU, or a patient CPU."""
    config = of_64_pixels()
    return dataclasses.replace(
        config,
        name='facades_128',
        num_steps=10_000,
        warmup_steps=6000,
        data=dataclasses.replace(config.data, image_size=128, load_size=144),
        network=c.recovery_network(128),
    )


def of_256_pixels() -> c.Config:
    """The poster's size, a hole of 128 pixels; for one GPU."""
    config = of_64_pixels()
    return dataclasses.replace(
        config,
        name='facades',
        num_steps=16_000,
        warmup_steps=10_000,
        ema_decay=0.999,
        data=dataclasses.replace(config.data, image_size=256, load_size=286),
        network=c.recovery_network(256),
    )
