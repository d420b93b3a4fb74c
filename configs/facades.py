"""CMP Facades: recover the middle of a photograph from its surroundings.

    python -m vaebm_jax.main --config=configs/facades.py:64 --workdir=runs/facades_64

`FACADES_DIR` or --config.data.dir names the folder of photographs. At 64 pixels 1,200 steps of the
VAE on the data and 240 of all three take 7.1 CPU minutes (AVX-512, jax 0.10.2). On the 106 test
images, seed 0 (--mode=evaluate --langevin_steps=2): in the hole 18.12 dB for the mean of 16 refined
recoveries, 18.26 for that of 16 ancestral ones, 18.12 for the best fill without a network; `fd_64`
of the holes is 0.330 refined, 0.435 ancestral, 0.443 by that fill. docs/recovery.md has the rest.

    python -m vaebm_jax.main --config=configs/facades.py:64_diverse --workdir=runs/facades_diverse

draws recoveries that differ (a standard deviation of 0.11 in pixels of [-1, 1] in place of 0.02),
with more texture (`fd_64` 0.278 in place of 0.415) and a less exact mean (18.56 in place of 18.99
dB): on the validation images, seed 0, after 11.7 CPU minutes (docs/experiments/known_z.md).

The versions of 128 and 256 pixels are made for a GPU; they compile and train, but have not been run
to their end. 20 steps at 256 pixels took 7.1 GB.
"""

import dataclasses

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    variants = {'128': of_128_pixels(), '64': of_64_pixels(), '64_diverse': diverse()}
    return c.choose(variant, default=of_256_pixels(), **variants)


def of_64_pixels() -> c.Config:
    """For two CPU cores."""
    return c.Config(
        name='facades_64',
        num_steps=1440,
        warmup_steps=1200,
        batch_size=8,
        latent_dim=16,
        log_every=50,
        sample_every=800,
        checkpoint_every=400,
        ema_decay=0.995,
        data=c.DataConfig(name='facades', image_size=64, load_size=72, num_channels=3, flip=True),
        condition=c.ConditionConfig('center_hole', jitter=0.1, edge_profiles=0.75),
        langevin=c.LangevinConfig(num_steps=5, step_size=0.003),
        energy=c.EnergyConfig(learning_rate=5e-4),
        vae=c.VAEConfig(
            learning_rate=5e-4, kl_weight=1.0, adam_b1=0.9, truth_weight=1.0, guess_weight=1.0
        ),
        network=c.recovery_network(64),
        # Constant to step 320, then linear; it would reach 5 % at step 1,600.
        schedule=c.ScheduleConfig(decay_share=0.7778, final_share=0.16875),
    )


def diverse() -> c.Config:
    """At 64 pixels, with recoveries that differ: more texture, and a less exact mean."""
    config = of_64_pixels()
    return dataclasses.replace(
        config,
        name='facades_64_diverse',
        num_steps=1700,
        vae=dataclasses.replace(
            config.vae, kl_weight=0.15, known_z_weight=1.0, guess_weight=0.0, mean_weight=1.0
        ),
    )


def of_128_pixels() -> c.Config:
    """For a GPU, or a patient CPU."""
    config = of_64_pixels()
    return dataclasses.replace(
        config,
        name='facades_128',
        num_steps=10_000,
        warmup_steps=6000,
        batch_size=16,
        ema_decay=0.999,
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
        batch_size=16,
        ema_decay=0.999,
        data=dataclasses.replace(config.data, image_size=256, load_size=286),
        network=c.recovery_network(256),
    )
