"""Every shipped config is valid, builds, and has the number of parameters that it should."""

import importlib.util
import pathlib

import jax
import pytest

from vaebm_jax.config import flatten, validate
from vaebm_jax.errors import UserError
from vaebm_jax.methods import create_states

CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'

# file:variant -> parameters of energy, encoder and decoder.
NUM_PARAMETERS = {
    'cifar10': (1_710_465, 4_393_800, 2_039_491),
    'cifar10:gpu': (1_350_529, 1_771_968, 4_548_803),
    'cifar10:paper': (1_710_465, 4_393_800, 2_039_491),
    'digits': (82_689, 90_656, 86_592),
    'facades': (1_757_409, 2_265_344, 11_846_527),
    'facades:128': (438_113, 692_096, 2_464_735),
    'facades:64': (175_841, 429_824, 1_275_231),
    'fashion_mnist': (1_460_225, 960_064, 1_732_368),
    'fashion_mnist:paper': (1_625_188, 759_688, 2_743_745),
    'mnist': (943_409, 697_408, 681_744),
    'mnist:paper': (1_625_188, 759_688, 2_743_745),
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


def test_every_config_is_in_the_table():
    assert {path.stem for path in CONFIGS.glob('*.py')} == {
        name.partition(':')[0] for name in NUM_PARAMETERS
    }


@pytest.mark.parametrize('name', sorted(NUM_PARAMETERS))
def test_config_builds(name):
    config = read_config(name)
    validate(config)
    assert config.name == name.replace(':', '_')
    states = jax.eval_shape(lambda key: create_states(key, config), jax.random.key(0))
    count = lambda state: sum(leaf.size for leaf in jax.tree.leaves(state.params))
    counts = tuple(map(count, (states.energy, states.encoder, states.decoder)))
    assert counts == NUM_PARAMETERS[name]


@pytest.mark.parametrize('name', ['cifar10:paper', 'mnist:paper', 'fashion_mnist:paper'])
def test_paper_configs_have_the_authors_settings(name):
    config = flatten(read_config(name))
    is_cifar = name.startswith('cifar10')
    expected = {
        'batch_size': 250 if is_cifar else 400,
        'num_chains': 900 if is_cifar else 400,
        'langevin.num_steps': 15 if is_cifar else 50,
        'langevin.step_size': 0.002 if is_cifar else 0.001,
        'energy.learning_rate': 9e-3,
        'vae.learning_rate': 2e-4 if is_cifar else 1e-4,
        'energy.adam_b1': 0.5,
        'vae.adam_b1': 0.5,
        'energy.reference_std': 0.016,
        'energy.scale': 1.0,
        'vae.kl_weight': 2.0 if is_cifar else 3.0,
        'latent_dim': 100,
        'schedule.name': 'exponential',
        'schedule.decay_rate': 0.98,
        # 20 epochs of 50,000 / 250 or 60,000 / 400 steps.
        'schedule.decay_steps': 4000 if is_cifar else 3000,
        'num_steps': 1_000_000 if is_cifar else 750_000,
        'network.init_std': 0.005,
        'network.activation': 'leaky_relu',
    }
    assert {field: config[field] for field in expected} == expected


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match="no variant 'x'; there are: default, gpu, paper"):
        read_config('cifar10:x')
