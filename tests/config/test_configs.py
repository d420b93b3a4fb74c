"""Every shipped config is valid, builds, and has the number of parameters that it should."""

import jax
import pytest
from helpers.configs import CONFIGS, NUM_PARAMETERS, read_config

from vaebm_jax.config import flatten, validate
from vaebm_jax.methods import create_states
from vaebm_jax.runtime.errors import UserError


def test_every_config_is_in_the_table():
    assert {path.stem for path in CONFIGS.glob('*.py')} == {
        name.partition(':')[0] for name in NUM_PARAMETERS
    }


@pytest.mark.parametrize('name', sorted(NUM_PARAMETERS))
def test_config_builds(name):
    config = read_config(name)
    if config.data.name == 'folder':  # Of the user's images, which only the command line names.
        config.data.dir = 'images'
    validate(config)
    assert config.name == name.replace(':', '_')
    states = jax.eval_shape(lambda key: create_states(key, config), jax.random.key(0))
    count = lambda state: sum(leaf.size for leaf in jax.tree.leaves(state.params))
    counts = tuple(map(count, (states.energy, states.encoder, states.decoder)))
    assert counts == NUM_PARAMETERS[name]


def test_own_images_are_learned_as_those_of_cifar10():
    """Where they differ is in the images, and in how many steps."""
    for own, name in (('own_images', 'cifar10:small'), ('own_images:gpu', 'cifar10:gpu')):
        ours, theirs = flatten(read_config(own)), flatten(read_config(name))
        free = {'name', 'num_steps', 'sample_every', 'checkpoint_every'}
        differs = {setting for setting in ours if ours[setting] != theirs[setting]} - free
        assert differs == {'data.name', 'data.test_share'}


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
    with pytest.raises(UserError, match="no variant 'x'; there are: default, small, gpu, paper"):
        read_config('cifar10:x')
