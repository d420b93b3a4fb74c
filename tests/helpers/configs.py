"""Configs for tests."""

import dataclasses
import importlib.util

from helpers.commands import ROOT
from vaebm_jax.config import (
    ConditionConfig,
    Config,
    DataConfig,
    EnergyConfig,
    LangevinConfig,
    NetworkConfig,
    VAEConfig,
)


def tiny() -> Config:
    """8x8 images through small dense networks: a step takes milliseconds."""
    table = (('dense', 16),)
    return Config(
        num_steps=6,
        batch_size=8,
        latent_dim=4,
        log_every=2,
        sample_every=0,
        checkpoint_every=2,
        data=DataConfig(name='digits'),
        langevin=LangevinConfig(num_steps=3),
        network=NetworkConfig(energy=table, encoder=table, decoder=table),
    )


def pixels(method: str, channels: int = 1) -> Config:
    """For pixelcnn and pixeliqn: `tiny` with two small layers; in colours, 3 x 3 pixels."""
    config = tiny()
    config.method, config.vae.learning_rate = method, 0.01
    config.convolution = 'plain'  # It compiles in less time.
    config.schedule.name = 'constant'
    config.network.likelihood = (*(('gated', 6, 3),) * 2, ('dense', 8))
    if channels == 3:
        config.data = DataConfig(name='cifar10', image_size=3, num_channels=3)
    return config


CONFIGS = ROOT / 'configs'
# file:variant -> parameters of energy, encoder and decoder.
NUM_PARAMETERS = {
    'cifar10': (1_710_465, 4_393_800, 2_039_491),
    'cifar10:gpu': (2_530_689, 1_771_968, 4_548_803),
    'cifar10:small': (337_857, 132_896, 532_579),
    'cifar10:paper': (1_710_465, 4_393_800, 2_039_491),
    'digits': (82_689, 90_656, 86_592),
    'facades': (1_757_409, 2_265_344, 11_846_527),
    'facades:128': (438_113, 692_096, 2_464_735),
    'facades:64': (175_841, 429_824, 1_275_231),
    'fashion_mnist': (1_460_225, 960_064, 1_732_368),
    'fashion_mnist:paper': (1_625_188, 759_688, 2_743_745),
    'mnist': (943_409, 697_408, 681_744),
    'mnist:paper': (1_625_188, 759_688, 2_743_745),
    'own_images': (337_857, 132_896, 532_579),
    'own_images:32': (338_529, 231_200, 573_795),
    'own_images:gpu': (2_530_689, 1_771_968, 4_548_803),
    'paris_streetview': (1_757_409, 2_265_344, 11_846_527),
    'toy2d': (4_417, 4_612, 4_482),
    'toy2d:checkerboard': (4_417, 4_612, 4_482),
    'toy2d:ring': (4_417, 4_612, 4_482),
    'toy2d:two_moons': (4_417, 4_612, 4_482),
}


def read_config(name):
    """By its path, as the command line does: a config file has no neighbours to import."""
    file, _, variant = name.partition(':')
    spec = importlib.util.spec_from_file_location(file, CONFIGS / f'{file}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant) if variant else module.get_config()


U_NET = (('down', 8, 3), ('conv', 8, 3), ('down', 8, 3), ('up', 8, 3), ('conv', 8, 3), ('up', 8, 3))

_TRUNK = (('conv', 6, 4, 2),)
_RECOVERY = {
    'convolution': 'plain',  # It compiles in less time.
    'condition': ConditionConfig('center_hole', jitter=0.1),
    'network': NetworkConfig(energy=_TRUNK, encoder=_TRUNK, decoder=(('down', 6, 3), ('up', 6, 3))),
}
# Method -> settings of a small run of it, beside those of `rival`.
RIVALS = {
    'wgan_gp': {'energy': EnergyConfig(updates=2)},
    'ccoopnets': _RECOVERY | {'vae': VAEConfig(guess_weight=1.0)},
    'pix2pix': _RECOVERY,
    'cvae_gan': _RECOVERY,
    'cvae_gan_pp': _RECOVERY | {'energy': EnergyConfig(spectral_norm=1.0)},
    'bicycle_gan': _RECOVERY,
}


def rival(method: str) -> Config:
    """A small run of a method of METHODS."""
    config = tiny()
    config.schedule.name = 'constant'
    return dataclasses.replace(config, method=method, **RIVALS.get(method, {}))
