"""Chains from noise and from a replay memory: the memory's rules, and whole steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.devices import assert_close, run_on_devices
from helpers.runs import assert_same_states, train

from vaebm_jax import Batch, States, create_states, generate, load
from vaebm_jax.config import Config, DataConfig, EnergyConfig, LangevinConfig, validate
from vaebm_jax.figures.film import write_geometry
from vaebm_jax.methods import persistent, short_run
from vaebm_jax.methods.generate import revision
from vaebm_jax.methods.parts import update_energy
from vaebm_jax.models.apply import averaged
from vaebm_jax.models.states import TrainState
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.keys import chain_keys
from vaebm_jax.tasks.images import sample
from vaebm_jax.tasks.points import evaluate_points
from vaebm_jax.tasks.report import write_report

KEY = jax.random.key(4)
NUM_CHAINS = 6


def linear_energy(variables, x, condition):
    return x.reshape(len(x), -1) @ variables['params']['slope']


def energy_of(slope, rate=1.0):
    params = {'slope': jnp.asarray(slope, jnp.float32)}
    return TrainState.create(apply_fn=linear_energy, params=params, tx=optax.sgd(rate))


def config_of(method='persistent', headroom=0.0, **langevin):
    langevin = {'num_steps': 3, 'step_size': 0.4, 'noise_scale': 0.0, 'memory_size': 10} | langevin
    return Config(
        method=method,
        num_chains=NUM_CHAINS,
        data=DataConfig(image_size=2, headroom=headroom),
        langevin=LangevinConfig(**langevin),
        energy=EnergyConfig(reference_std=0.0, scale=1.5),
    )


def memory_of(config, byte):
    """A full memory of images with one value."""
    images = jnp.full((config.langevin.memory_size, 2, 2, 1), byte, jnp.uint8)
    return persistent.init_memory(KEY, config) | {
        'images': images,
        'size': jnp.int32(config.langevin.memory_size),
    }


def test_a_short_run_on_a_linear_energy():
    """f = w'x: chains end at noise + T ½ δ² scale w, and the energy learns from these."""
    config, slope = config_of('short_run'), np.array([0.5, -1.0, 2.0, 0.25], np.float32)
    images = np.random.default_rng(1).normal(size=(4, 2, 2, 1)).astype(np.float32)
    step = jax.jit(short_run.short_run_step, static_argnames='config')
    after, metrics = step(KEY, States(energy=energy_of(slope)), Batch(jnp.asarray(images)), config)
    key_start, _ = jax.random.split(jax.random.fold_in(KEY, 0))
    starts = np.asarray(short_run.noise(chain_keys(key_start, NUM_CHAINS), config))
    assert starts.shape == (NUM_CHAINS, 2, 2, 1) and -1.0 <= starts.min() < starts.max() < 1.0
    refined = starts.reshape(NUM_CHAINS, 4) + 3 * 0.5 * 0.4**2 * 1.5 * slope
    rise = 1.5 * (images.reshape(4, -1).mean(axis=0) - refined.mean(axis=0))
    np.testing.assert_allclose(after.energy.params['slope'] - slope, rise, atol=1e-5)
    assert after.memory is None and int(after.step) == 1
    assert not {'rate', 'spread_ancestral'} & metrics.keys()


@pytest.mark.parametrize('headroom', [0.0, 0.3])
def test_noise_is_uniform_in_the_range_of_the_data(headroom):
    x = np.asarray(short_run.noise(chain_keys(KEY, 5_000), config_of(headroom=headroom))).ravel()
    end = 1.0 + headroom
    assert -end <= x.min() < -0.99 * end and 0.99 * end < x.max() <= end
    np.testing.assert_allclose([x.mean(), x.var()], [0.0, end**2 / 3], atol=0.02)


def test_one_chain_in_twenty_starts_from_noise():
    config = config_of()
    keys = chain_keys(KEY, 40_000)
    starts = persistent.draw_starts(keys, memory_of(config, 255), config, persistent.RESTARTS)
    is_restarted = np.asarray(starts).min(axis=(1, 2, 3)) < 254 / 128 - 1
    np.testing.assert_allclose(is_restarted.mean(), 0.05, atol=0.004)
    without = persistent.draw_starts(keys[:1000], memory_of(config, 255), config)
    assert np.asarray(without).min() >= 255 / 128 - 1


def test_an_empty_memory_gives_noise_and_a_part_full_one_what_it_holds():
    config = config_of()
    memory, keys = persistent.init_memory(KEY, config), chain_keys(KEY, 2_000)
    starts = np.asarray(persistent.draw_starts(keys, memory, config)).ravel()
    np.testing.assert_allclose(starts.var(), 1 / 3, atol=0.02)
    rows = jnp.arange(1, 4, dtype=jnp.uint8).reshape(3, 1, 1, 1) * jnp.ones((3, 2, 2, 1), jnp.uint8)
    starts = persistent.draw_starts(keys, persistent.store(memory, 50 * rows), config)
    found, counts = np.unique(np.floor(128 * (np.asarray(starts) + 1)), return_counts=True)
    assert found.tolist() == [50, 100, 150]
    np.testing.assert_allclose(counts / counts.sum(), 1 / 3, atol=0.04)


def test_8_bits_there_and_back():
    """v in [0, 1] is stored as floor(255 v) and read as that / 256 + U(0, 1/256)."""
    config = config_of(headroom=0.25)
    v = np.linspace(-0.1, 1.1, 997)
    x = jnp.asarray(1.25 * (2 * v - 1), jnp.float32).reshape(-1, 1, 1, 1)
    stored = persistent.to_bytes(x, config)
    assert stored.dtype == np.uint8
    expected = np.floor(255 * np.clip(v, 0, 1))
    assert np.mean(stored.ravel() == expected) > 0.99  # But for rounding at whole numbers.
    u = np.random.default_rng(0).uniform(size=x.shape).astype(np.float32)
    back = np.asarray(persistent.from_bytes(stored, 1.25 * (2 * u - 1), config))
    np.testing.assert_allclose((back / 1.25 + 1) / 2, (stored + u) / 256, atol=1e-6)
    error = np.abs((back / 1.25 + 1) / 2 - np.clip(v, 0, 1).reshape(x.shape))
    assert error.max() < 1 / 128


def test_new_rows_take_the_place_of_the_oldest():
    config = config_of(memory_size=5)
    memory, held = persistent.init_memory(KEY, config), []
    for count in (3, 2, 1, 4, 5, 2):
        rows = np.arange(len(held), len(held) + count)
        held += rows.tolist()
        images = jnp.asarray(rows, jnp.uint8).reshape(-1, 1, 1, 1) * jnp.ones(
            (1, 2, 2, 1), jnp.uint8
        )
        memory = persistent.store(memory, images)
        newest = held[-5:]
        stored = np.asarray(memory['images'])[:, 0, 0, 0]
        assert sorted(stored[: int(memory['size'])].tolist()) == newest
        assert int(memory['next']) == len(held) % 5


def test_ends_of_chains_enter_the_memory_and_chains_continue_from_it():
    """A flat energy without noise leaves every chain where it starts."""
    config = config_of(memory_size=2 * NUM_CHAINS)
    step = jax.jit(persistent.persistent_step, static_argnames='config')
    states = States(
        energy=energy_of(np.zeros(4), rate=0.0), memory=persistent.init_memory(KEY, config)
    )
    batch = Batch(jnp.ones((4, 2, 2, 1)))
    states, _ = step(KEY, states, batch, config)
    images = np.asarray(states.memory['images'])
    first = images[:NUM_CHAINS]
    assert len(np.unique(first, axis=0)) == NUM_CHAINS and not images[NUM_CHAINS:].any()
    states, _ = step(KEY, states, batch, config)
    images = np.asarray(states.memory['images'])
    np.testing.assert_array_equal(images[:NUM_CHAINS], first)
    # (b + u) / 256, stored again, is b or b - 1. One chain in 20 starts from noise.
    lost = np.int32(first)[:, np.newaxis] - images[NUM_CHAINS:]
    is_from = ((lost >= 0) & (lost <= 1)).all(axis=(2, 3, 4)).any(axis=0)
    assert is_from.sum() >= NUM_CHAINS - 1
    assert (int(states.memory['size']), int(states.memory['next'])) == (2 * NUM_CHAINS, 0)


def test_the_loss_of_free_energies_is_least_half_a_unit_apart():
    """E+ - E- + E+² + E-², in units of the scale: -1/2 at E+ = -1/2 and E- = 1/2."""
    config = Config(energy=EnergyConfig(reference_std=0.0, scale=300.0, l2=1.0))
    data, samples = (Batch(x) for x in np.eye(2, 4, dtype=np.float32).reshape(2, 1, 2, 2, 1))
    energy = energy_of([0.3, 0.4, 0.0, 0.0], rate=0.2 / 300.0)
    step = jax.jit(update_energy, static_argnames='config')
    for _ in range(40):
        energy, _ = step(energy, data, samples, config)
    _, metrics = step(energy, data, samples, config)
    assert float(metrics['energy_data']) / 300.0 == pytest.approx(-0.5, rel=1e-4)
    assert float(metrics['energy_samples']) / 300.0 == pytest.approx(0.5, rel=1e-4)


def test_it_resumes_bit_for_bit_and_samples_are_independent(tiny_config, tmp_path):
    tiny_config.schedule.name = 'constant'
    config = dataclasses.replace(
        tiny_config, method='persistent', langevin=LangevinConfig(num_steps=3, memory_size=20)
    )
    whole = train(config, tmp_path / 'whole')
    train(dataclasses.replace(config, num_steps=4), tmp_path / 'parts')
    assert_same_states(train(config, tmp_path / 'parts'), whole)
    states, config = load(tmp_path / 'parts')
    assert set(states.models) == {'energy'}
    assert (int(states.memory['size']), int(states.memory['next'])) == (20, 6 * 8 % 20)
    assert np.asarray(states.memory['images']).std() > 10
    few, many = (generate(KEY, states, config, count) for count in (3, 7))
    for ours, theirs in zip(few, many, strict=True):
        np.testing.assert_allclose(ours, theirs[:3], atol=1e-6)
    assert np.abs(few[0] - few[1]).max() > 1e-3
    film = revision(KEY, averaged(states), config, 3)
    for ours, theirs in zip((film[0], film[-1]), few, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_pictures_and_report_are_of_the_stages_that_there_are(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, method='short_run', num_steps=2)
    train(config, tmp_path)
    sample(config, tmp_path, num_samples=7)
    names = {path.name for path in (tmp_path / 'samples').iterdir()}
    assert names - {'step_00000002.png'} == {
        *('grid.png', 'revision.png', 'noise', 'refined', 'noise.npz', 'refined.npz')
    }
    page = write_report(tmp_path).read_text()
    assert 'not drawn yet' not in page and 'econstruction' not in page
    assert 'Samples: uniform noise, after 3 Langevin steps' in page


def test_the_plane_is_scored_by_samples_where_there_is_no_vae(toy_config, tmp_path):
    config = dataclasses.replace(toy_config, method='short_run', num_steps=2)
    train(config, tmp_path)
    result = evaluate_points(config, tmp_path, num_samples=300)
    assert {'noise', 'refined', 'acceptance'} <= result.keys() and 'energy' not in result
    message = "needs a run with an encoder and decoder, got method='short_run'"
    with pytest.raises(UserError, match=message):
        write_geometry(config, tmp_path)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'data': DataConfig('ring', image_size=1, num_channels=2)}, 'data.name must be of images'),
        ({'batch_size': 101}, 'memory_size must be at least the 101 chains of an iteration, got 1'),
        ({'num_chains': 102}, 'memory_size must be at least the 102 chains of an iteration, got 1'),
    ],
)
def test_what_has_no_place_in_a_memory_is_refused(changes, message):
    langevin = LangevinConfig(memory_size=100)
    config = Config(**{'method': 'persistent', 'batch_size': 10, 'langevin': langevin} | changes)
    with pytest.raises(UserError, match=message):
        validate(config)


@pytest.mark.parametrize('method', ['short_run', 'persistent'])
def test_a_condition_is_refused(method, tiny_config):
    condition = dataclasses.replace(tiny_config.condition, kind='center_hole')
    config = dataclasses.replace(tiny_config, method=method, condition=condition)
    with pytest.raises(UserError, match=f'condition.kind must be none with method {method}'):
        validate(config)
    states = jax.eval_shape(
        lambda: create_states(KEY, dataclasses.replace(tiny_config, method=method))
    )
    assert (states.memory is None) == (method == 'short_run')


@pytest.mark.multi_device
def test_the_number_of_devices_does_not_matter(tmp_path):
    results = run_on_devices(tmp_path, 4, 'float64', 'persistent', '1x1', '2x1', '4x1')
    assert_close(results, select='', tolerance=1e-6)
    (name,) = (name for name in results['1x1'] if "['images']" in name)
    assert results['1x1'][name].dtype == np.uint8
    for run in ('2x1', '4x1'):
        np.testing.assert_array_equal(results[run][name], results['1x1'][name])
