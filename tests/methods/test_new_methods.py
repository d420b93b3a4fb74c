"""A method is one row: of one network, with a memory, of five networks."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.devices import assert_close, run_on_devices
from helpers.toy_methods import MEMORY_SIZE, ROWS

from vaebm_jax import create_states, generate, load
from vaebm_jax.config import Config, VAEConfig
from vaebm_jax.data.batch import as_pixels
from vaebm_jax.data.loading import load_images
from vaebm_jax.evaluation.scores import evaluate
from vaebm_jax.methods import METHODS
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks.images import sample
from vaebm_jax.training import checkpoints
from vaebm_jax.training.loop import train
from vaebm_jax.training.parallel import compile_step

KEY = jax.random.key(3)


@pytest.fixture(autouse=True)
def _rows(monkeypatch):
    for name, row in ROWS.items():
        monkeypatch.setitem(METHODS, name, row)


def config_of(config, method):
    config.schedule.name = 'constant'
    return dataclasses.replace(config, method=method)


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize('method, steps_per_call', [('gaussian', 1), ('replay', 2), ('five', 1)])
def test_it_resumes_bit_for_bit(tiny_config, tmp_path, method, steps_per_call):
    config = dataclasses.replace(config_of(tiny_config, method), steps_per_call=steps_per_call)
    whole = train(config, tmp_path / 'whole')
    train(dataclasses.replace(config, num_steps=4), tmp_path / 'parts')
    assert_same(train(config, tmp_path / 'parts'), whole)
    assert_same(load(tmp_path / 'parts')[0], whole)
    names = set(ROWS[method].roles)
    assert set(whole.models) == names
    assert [int(model.step) for model in whole.models.values()] == [6] * len(names)
    with checkpoints.checkpoint_manager(tmp_path / 'parts', read_only=True) as manager:
        memory = {'memory'} if method == 'replay' else set()
        assert set(manager.item_metadata(6)) == names | {'step'} | memory


@pytest.mark.parametrize('method', ROWS)
def test_states_are_donated(tiny_config, method):
    config = config_of(tiny_config, method)
    images = jnp.asarray(load_images(config.data)[:8])
    call = compile_step(METHODS[method].step, config, jax.devices()[:1])
    states = create_states(KEY, config)
    later, _ = call(KEY, states, images[np.newaxis], 1)
    assert int(later.step) == 1
    kept = [leaf for leaf in jax.tree.leaves(states) if not leaf.is_deleted()]
    assert not kept


def test_one_network_trains_draws_and_is_scored(tiny_config, tmp_path, capsys):
    config = dataclasses.replace(
        config_of(tiny_config, 'gaussian'),
        num_steps=300,
        ema_decay=0.0,
        log_every=300,
        checkpoint_every=300,
        vae=VAEConfig(learning_rate=0.02),
    )
    states = train(config, tmp_path)
    said = capsys.readouterr().err
    assert 'step 300/300: distance ' in said
    assert 'not used by gaussian: langevin.*, warmup_steps' in said
    mean = as_pixels(load_images(config.data)).mean(axis=0)
    np.testing.assert_allclose(states.models['gaussian'].params['mean'], mean, atol=0.2)

    sample(config, tmp_path, num_samples=600)
    with np.load(tmp_path / 'samples' / 'drawn.npz') as file:
        drawn = file['images']
    assert drawn.shape == (600, 8, 8, 1)
    np.testing.assert_allclose(drawn.std(axis=0).mean(), 1.0, atol=0.02)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.4)
    both = generate(jax.random.key(config.seed), states, config, 10)
    np.testing.assert_allclose(drawn[:10], both[0], atol=1e-6)
    np.testing.assert_array_equal(*both)
    result = evaluate(config, tmp_path, num_samples=20)
    assert json.loads((tmp_path / 'evaluation.json').read_text()) == result
    assert result['drawn'] == {'num_samples': 20, 'langevin_steps': 0}
    assert not {'ancestral', 'refined', 'diagnostics'} & result.keys()


def test_a_start_from_a_method_without_a_model_in_common_is_refused(tiny_config, tmp_path):
    train(config_of(tiny_config, 'gaussian'), tmp_path / 'first')
    config = dataclasses.replace(config_of(tiny_config, 'vae'), init_from=str(tmp_path / 'first'))
    with pytest.raises(UserError, match='holds no decoder or encoder: its method is gaussian'):
        train(config, tmp_path / 'second')
    assert not (tmp_path / 'second').exists()


def test_the_memory_is_the_runs(tiny_config, tmp_path):
    """Chains' ends take the oldest places: 8 an iteration, from the first on."""
    config = config_of(tiny_config, 'replay')
    images = jnp.asarray(load_images(config.data)[:8])
    call = compile_step(METHODS['replay'].step, config, jax.devices()[:1])
    states = create_states(KEY, config)
    before = np.asarray(states.memory)
    assert before.shape == (MEMORY_SIZE, 8, 8, 1) and before.dtype == np.uint8
    for step in range(6):
        states, _ = call(KEY, states, images[np.newaxis], 1)
        after = np.asarray(states.memory)
        changed = np.flatnonzero((after != before).any(axis=(1, 2, 3)))
        first = 8 * step % MEMORY_SIZE
        assert changed.tolist() == list(range(first, first + 8))
        before = after


@pytest.mark.multi_device
@pytest.mark.parametrize('method', ['replay', 'five'])
def test_the_number_of_devices_does_not_matter(tmp_path, method):
    results = run_on_devices(tmp_path, 4, 'float64', method, '1x1', '2x1', '4x3')
    assert_close(results, select='', tolerance=1e-6)
    names = set(results['1x1'])
    assert any('memory' in name for name in names) == (method == 'replay')
    assert any('other_energy' in name for name in names) == (method == 'five')


def test_a_method_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(
        UserError, match='method must be one of vaebm, vae, .*gaussian, .*got .magic'
    ):
        train(Config(method='magic'), tmp_path)
