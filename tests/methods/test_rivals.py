"""What every method but the poster's has to do; a new row of METHODS is tested, too."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configs import rival
from helpers.devices import assert_close, run_on_devices
from helpers.runs import assert_same_states

from vaebm_jax import create_states, load
from vaebm_jax.data.conditions import fixed_condition
from vaebm_jax.data.loading import load_images
from vaebm_jax.methods import METHODS, sample_stages
from vaebm_jax.training import checkpoints
from vaebm_jax.training.loop import train
from vaebm_jax.training.parallel import compile_step

NAMES = sorted(METHODS.keys() - {'vaebm'})
KEY = jax.random.key(3)


@pytest.fixture(autouse=True, scope='module')
def _quick():
    """As helpers.devices.QUICK: less than half the time to compile, and all is compiled alike."""
    flag = 'jax_disable_most_optimizations'
    jax.config.update(flag, True)
    yield
    jax.config.update(flag, False)
    jax.clear_caches()


@pytest.mark.multi_device
@pytest.mark.parametrize('method', NAMES)
def test_the_number_of_devices_does_not_matter(tmp_path, method):
    results = run_on_devices(tmp_path, 3, 'float64', method, '1x1', '2x1', '4x1')
    # Chains from noise are of 32 bits.
    assert_close(results, select='', tolerance=1e-5)
    for name, array in results['4x1'].items():
        assert np.isfinite(array).all(), name


@pytest.mark.parametrize('method', NAMES)
def test_it_resumes_bit_for_bit(tmp_path, method):
    config = dataclasses.replace(rival(method), num_steps=4)
    whole = train(config, tmp_path / 'whole')
    train(dataclasses.replace(config, num_steps=2), tmp_path / 'parts')
    assert_same_states(train(config, tmp_path / 'parts'), whole)
    assert_same_states(load(tmp_path / 'parts')[0], whole)
    roles = METHODS[method].roles
    updates = {name: 4 * role.num_updates(config) for name, role in roles.items()}
    assert {name: int(model.step) for name, model in whole.models.items()} == updates
    with checkpoints.checkpoint_manager(tmp_path / 'parts', read_only=True) as manager:
        memory = {'memory'} if METHODS[method].init_memory else set()
        assert set(manager.item_metadata(4)) == {*roles, 'step', *memory}


@functools.cache
def step(config):
    """The states after one step."""
    call = compile_step(METHODS[config.method].step, config, jax.devices()[:1])
    images = jnp.asarray(load_images(config.data)[: config.batch_size])
    return call(KEY, create_states(KEY, config), images[np.newaxis], 1)[0]


@pytest.mark.parametrize('method', NAMES)
def test_the_rate_of_some_roles_does_not_touch_the_others(method):
    """In one step: no update reaches a role that is not its own."""
    sections = {name: role.section for name, role in METHODS[method].roles.items()}
    config = rival(method)
    vae = dataclasses.replace(config.vae, learning_rate=3 * config.vae.learning_rate)
    states = [step(config), step(dataclasses.replace(config, vae=vae))]
    for name, section in sections.items():
        one, other = (jax.tree.leaves(each.models[name].params) for each in states)
        is_same = all(map(np.array_equal, one, other))
        assert is_same == (section == 'energy'), name


@pytest.mark.parametrize('method', NAMES)
def test_a_sample_does_not_depend_on_how_many_are_drawn(method):
    config = rival(method)
    states = step(config)
    keys = [jax.random.split(key, 5) for key in jax.random.split(KEY)]
    condition = None
    if config.condition.kind != 'none':
        images = jnp.asarray(load_images(config.data)[:5]) / 127.5 - 1.0
        condition = fixed_condition(images, config.condition)

    @jax.jit
    def drawn(states, keys, condition):
        return METHODS[method].sample(keys, states, config, len(keys[0]), condition)

    all_five = drawn(states, keys, condition)
    last = drawn(states, *jax.tree.map(lambda rows: rows[3:], (keys, condition)))
    assert list(all_five) == list(sample_stages(config))
    for stage, images in all_five.items():
        assert images.shape == (5, 8, 8, 1) and images.dtype == jnp.float32
        np.testing.assert_allclose(images[3:], last[stage], atol=1e-5)
        assert np.abs(images[0] - images[1]).max() > 1e-3
