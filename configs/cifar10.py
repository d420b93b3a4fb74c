"""CIFAR-10, 32x32x3 (TFDS).

    python -m vaebm_jax.main --config=configs/cifar10.py:gpu --workdir=runs/cifar10

For one GPU and ten minutes. Differs from the poster in what the models learn from: the decoder
learns from the z that its chain started from (`vae.known_z_weight`), the energy has spectral norm
in place of a Gaussian reference, and the data get noise of the same size as the chain's. With
15,920 steps, 160 seconds of an H200 and a minute of compiling, it has an `fd_768` of 0.27 refined
and 0.34 ancestral, and did not diverge (docs/experiments/cifar10_known_z.md). The energy is only
valid near the samples: uniform noise has a lower energy than data. launch/cifar10_gpu.sh makes as
many steps as fit in a given number of minutes.

    python -m vaebm_jax.main --config=configs/cifar10.py:small --workdir=runs/cifar10_small

does the same at 16 pixels in smaller networks, with shorter chains and a faster energy, on two CPU
cores. It takes 19.3 CPU minutes; ships, cars and animals can be recognized among many images that
cannot (docs/experiments/known_z.md, latent_steps.md).

    python -m vaebm_jax.main --config=configs/cifar10.py --workdir=runs/cifar10

has the authors' networks in the normalized form: 64 images a step, float32, four seconds a step on
two CPU cores. Tried for only 200 steps, which took 20 minutes of one core
(`--config.num_steps=200`, seed 0): energies stayed between -1.1e8 and 1.5e6 and ended at -1.3e6 for
data and -1.6e6 for samples, with a transient excursion about step 80; the samples ended with 0.60
of the data's spread and a rate of 9.8 nats. With a VAE rate of 1e-4 or more all samples look the
same within 50 steps; energy 1.5e-4 with VAE 4e-5 diverged at step 70.

    python -m vaebm_jax.main --config=configs/cifar10.py:paper --workdir=runs/cifar10_paper

has the authors' settings.
"""

import dataclasses

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    return c.choose(variant, default=default(), small=small(), gpu=gpu(), paper=paper())


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
    """Known-z regression, an energy with spectral norm, bfloat16, batches for a GPU."""
    step_size, num_steps = 0.001, 10
    return c.Config(
        name='cifar10_gpu',
        num_steps=50_000,
        batch_size=128,
        latent_dim=128,
        log_every=100,
        sample_every=4000,
        checkpoint_every=4000,
        ema_decay=0.999,
        steps_per_call=20,
        dtype='bfloat16',
        data=c.DataConfig(
            name='cifar10', image_size=32, num_channels=3, flip=True, dequantize=True
        ),
        langevin=c.LangevinConfig(num_steps=num_steps, step_size=step_size),
        energy=c.EnergyConfig(
            reference_std=0.0,
            scale=2 * 5.0 / step_size**2,  # A step moves x by 5 times the gradient of f.
            learning_rate=4e-4,
            adam_b1=0.0,
            adam_b2=0.9,
            spectral_norm=1.0,
            l2=1e-3,
            data_noise=step_size * num_steps**0.5,
        ),
        vae=c.VAEConfig(
            learning_rate=2e-4,
            kl_weight=2.0,
            adam_b1=0.0,
            adam_b2=0.9,
            bound_weight=0.0,
            known_z_weight=1.0,
            truth_weight=0.02,
        ),
        network=c.NetworkConfig(
            energy=(
                ('conv', 64, 3, 1),
                ('conv', 128, 4, 2),
                ('res', 128, 2),
                ('res', 256, 2),
                ('res', 256, 1),
            ),
            encoder=(
                ('conv', 64, 3, 1),
                ('conv', 64, 4, 2),
                ('conv', 128, 4, 2),
                ('conv', 256, 4, 2),
            ),
            decoder=(('map', 256), ('up', 256, 3), ('up', 128, 3), ('up', 64, 3)),
            decoder_modulated=True,
        ),
        schedule=c.ScheduleConfig(name='linear', decay_share=0.4, final_share=0.02, rise_steps=200),
    )


def small() -> c.Config:
    """16 x 16 pixels, for two cores: the teaching and the energy of `gpu`, in smaller networks."""
    of_gpu, num_steps = gpu(), 5
    step_size = of_gpu.langevin.step_size
    return dataclasses.replace(
        of_gpu,
        name='cifar10_small',
        num_steps=9_000,
        batch_size=32,
        latent_dim=64,
        log_every=50,
        sample_every=1000,
        checkpoint_every=1000,
        steps_per_call=1,
        dtype='float32',
        data=dataclasses.replace(of_gpu.data, image_size=16),
        langevin=dataclasses.replace(
            of_gpu.langevin,
            num_steps=num_steps,
            prior_steps=40,
            prior_step_size=0.1,
            prior_temperature=3e4,
        ),
        energy=dataclasses.replace(
            of_gpu.energy,
            scale=2 * 10.0 / step_size**2,  # As far in half as many steps.
            learning_rate=1e-3,
            data_noise=step_size * num_steps**0.5,
        ),
        network=c.NetworkConfig(
            energy=(('conv', 32, 3, 1), ('conv', 64, 4, 2), ('res', 64, 2), ('res', 128, 2)),
            encoder=(('conv', 32, 4, 2), ('conv', 64, 4, 2), ('conv', 64, 4, 2)),
            decoder=(('map', 128), ('up', 64, 3), ('up', 32, 3)),
            decoder_modulated=True,
        ),
    )


def paper() -> c.Config:
    """The authors' settings: 250 images and 900 chains a step, 5,000 epochs.

    The poster's chain has noise, the authors' code has none (`--config.langevin.noise_scale=0`); at
    this step size both give the same pictures. Samples are drawn with the last parameters, not with
    an average.
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
