"""Your own small images: a folder of image files, or an array in one file.

    vaebm --config=own_images --config.data.dir=path/to/images --workdir=runs/mine
    vaebm --config=own_images --config.data.name=array --config.data.dir=images.npy --workdir=runs/a

At 16x16 pixels, in colours, for two CPU cores and a quarter of an hour: 7,000 steps are 15 CPU
minutes at the speed of `configs/cifar10.py:small`. Files of any size are resized to the square in
their middle; an array has its images as they are, uint8 or floating-point (these need
`--config.data.dequantize=false`), and may have any number of channels
(`--config.data.num_channels`). A tenth of the images is held out as test.

What to expect: colours, backgrounds and shapes of the right kind, in which some things can be
recognized. It is the recipe of `configs/cifar10.py:small`, which docs/experiments/known_z.md
compares with others on 50,000 photographs; a few hundred images are learned by heart. Images that
are no longer the same kind when mirrored, such as letters, need `--config.data.flip=false`; grey
ones `--config.data.num_channels=1`.

    vaebm --config=own_images:32 ...

is the same at 32 pixels, with coarser first layers: a step has 1.35 times the operations, so it
makes 5,000, of which 50 have been tried. `own_images:gpu`, for one GPU, differs from
`configs/cifar10.py:gpu`, also of 32 pixels, in its images alone.
"""

import dataclasses

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    return c.choose(variant, default=of_16_pixels(), gpu=gpu(), **{'32': of_32_pixels()})


def of_16_pixels() -> c.Config:
    """For two CPU cores."""
    return c.Config(
        name='own_images',
        num_steps=7000,
        batch_size=32,
        latent_dim=64,
        log_every=50,
        sample_every=500,
        checkpoint_every=500,
        ema_decay=0.999,
        data=c.DataConfig(
            name='folder',
            image_size=16,
            num_channels=3,
            test_share=0.1,
            flip=True,
            dequantize=True,
        ),
        **chain_and_energy(
            num_steps=5,
            moves=10.0,
            learning_rate=1e-3,
            prior_steps=40,
            prior_step_size=0.1,
            prior_temperature=3e4,
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
            energy=(('conv', 32, 3, 1), ('conv', 64, 4, 2), ('res', 64, 2), ('res', 128, 2)),
            encoder=(('conv', 32, 4, 2), ('conv', 64, 4, 2), ('conv', 64, 4, 2)),
            decoder=(('map', 128), ('up', 64, 3), ('up', 32, 3)),
            decoder_modulated=True,
        ),
        schedule=c.ScheduleConfig(name='linear', decay_share=0.4, final_share=0.02, rise_steps=200),
    )


def chain_and_energy(num_steps: int, moves: float, learning_rate: float, **chain) -> dict:
    """A short chain, a step of which moves x by `moves` times the gradient of f."""
    step_size = 0.001
    return {
        'langevin': c.LangevinConfig(num_steps=num_steps, step_size=step_size, **chain),
        'energy': c.EnergyConfig(
            reference_std=0.0,
            scale=2 * moves / step_size**2,
            learning_rate=learning_rate,
            adam_b1=0.0,
            adam_b2=0.9,
            spectral_norm=1.0,
            l2=1e-3,
            data_noise=step_size * num_steps**0.5,  # As much as the chain's.
        ),
    }


def of_32_pixels() -> c.Config:
    """For two CPU cores: the first layers are coarser, so that a step costs little more."""
    config = of_16_pixels()
    return dataclasses.replace(
        config,
        name='own_images_32',
        num_steps=5000,
        data=dataclasses.replace(config.data, image_size=32),
        network=dataclasses.replace(
            config.network,
            energy=(('conv', 32, 4, 2), ('conv', 64, 4, 2), ('res', 64, 2), ('res', 128, 2)),
            decoder=(('map', 128), ('up', 64, 3), ('up', 32, 3), ('up', 32, 3)),
        ),
    )


def gpu() -> c.Config:
    """32 pixels, wider networks, bfloat16."""
    config = of_32_pixels()
    return dataclasses.replace(
        config,
        name='own_images_gpu',
        num_steps=16_000,
        batch_size=128,
        latent_dim=128,
        log_every=100,
        sample_every=4000,
        checkpoint_every=4000,
        steps_per_call=20,
        dtype='bfloat16',
        **chain_and_energy(num_steps=10, moves=5.0, learning_rate=4e-4),
        network=dataclasses.replace(
            config.network,
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
        ),
    )
