"""CIFAR-10, 32x32x3.

python -m vaebm_jax.main --config=configs/cifar10.py --workdir=runs/cifar10
"""

import dataclasses

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    config = c.Config(
        name='cifar10',
        num_steps=100_000,
        batch_size=64,
        latent_dim=100,
        ema_decay=0.999,
        data=c.DataConfig(name='cifar10', image_size=32, num_channels=3, flip=True),
        langevin=c.LangevinConfig(num_steps=15, step_size=0.004),
        vae=c.VAEConfig(learning_rate=2e-4, kl_weight=2.0),
        network=dataclasses.replace(c.cifar10_paper_network(), init_std=0.0),
    )
    return config
