"""CIFAR-10, 32x32x3 (TFDS).

    python -m vaebm_jax.main --config=configs/cifar10.py:gpu --workdir=runs/cifar10

The authors' networks in the normalised form, with SiLU and falling rates as on MNIST, for one GPU:
3,000 steps of the VAE alone, for a start near the data, and 17,000 of all three models, which took
3 minutes and 25 seconds of an H200 (88 steps of 256 images a second, jax 0.11.2). The rates are
those to which a run that began with four times as much had fallen back: it diverged within 20 and
110 steps of the energy's first, and was then steady to its end. Of 10,000 samples fd_768 was 1.43
before the revision and 1.10 after it, fd_64 0.36 and 0.29 (docs/results.md). From its own start the
config has not been run.

    python -m vaebm_jax.main --config=configs/cifar10.py --workdir=runs/cifar10

is without that start: 64 images a step, float32, four seconds a step of two CPU cores. Tried for
200 steps only, which took 20 minutes of one core (`--config.num_steps=200`, seed 0): energies
stayed between -1.1e8 and 1.5e6 and ended at -1.3e6 for data and -1.6e6 for samples, with an
excursion about step 80 that it came back from; the samples ended with 0.60 of the data's spread and
a rate of 9.8 nats. A VAE rate of 1e-4 or more collapses the samples to one picture within 50 steps;
energy 1.5e-4 with VAE 4e-5 ran off at step 70.

    python -m vaebm_jax.main --config=configs/cifar10.py:paper --workdir=runs/cifar10_paper

has the authors' settings.
"""

import dataclasses

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    return c.choose(variant, default=default(), gpu=gpu(), paper=paper())


def default() -> c.Config:
    """The authors' networks, normalised energy, a batch for one device."""
    return c.Config(
        name='cifar10',
        num_steps=100_000,
        batch_size=64,
        latent_dim=100,
        log_every=20,
        sample_every=1000,
        checkpoint_every=1000,
        ema_decay=0.999,
        data=c.DataConfig(name='cifar10', image_size=32, num_channels=3, flip=True),
        langevin=c.LangevinConfig(num_steps=15, step_size=0.006, max_drift=8.0),
        energy=c.EnergyConfig(learning_rate=2.5e-4),
        vae=c.VAEConfig(learning_rate=5e-5, kl_weight=2.0),
        network=dataclasses.replace(c.cifar10_paper_network(), activation='silu', init_std=0.0),
        schedule=c.ScheduleConfig(name='linear', decay_share=1.0),
    )


def gpu() -> c.Config:
    """A start by the VAE alone, bfloat16, and batches that a GPU takes in as little time."""
    config = default()
    return dataclasses.replace(
        config,
        name='cifar10_gpu',
        num_steps=20_000,
        batch_size=256,
        log_every=100,
        sample_every=2000,
        checkpoint_every=2000,
        steps_per_call=10,
        warmup_steps=3000,
        dtype='bfloat16',
        energy=dataclasses.replace(config.energy, learning_rate=6.25e-5),
        vae=dataclasses.replace(config.vae, learning_rate=7.5e-5),
    )


def paper() -> c.Config:
    """The authors' settings: 250 images and 900 chains a step, 5,000 epochs.

    The poster's chain has noise, the authors' code has not; at this step size either gives the
    same pictures. `--config.langevin.noise_scale=0` is the code's. Samples are drawn with the
    last parameters, not with an average.
    """
    return c.Config(
        name='cifar10_paper',
        num_steps=1_000_000,  # 5,000 epochs of 200 steps.
        batch_size=250,
        num_chains=900,
        latent_dim=100,
        log_every=200,
        sample_every=4000,
        checkpoint_every=4000,
        ema_decay=0.0,
        data=c.DataConfig(name='cifar10', image_size=32, num_channels=3),
        langevin=c.LangevinConfig(num_steps=15, step_size=0.002),
        energy=c.EnergyConfig(reference_std=0.016, scale=1.0, learning_rate=9e-3, adam_b1=0.5),
        vae=c.VAEConfig(learning_rate=2e-4, kl_weight=2.0, adam_b1=0.5),
        network=c.cifar10_paper_network(),
        # x 0.98 every 20 epochs, smoothly.
        schedule=c.ScheduleConfig(name='exponential', decay_rate=0.98, decay_steps=20 * 200),
    )
