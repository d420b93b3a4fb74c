"""Likelihoods of images under densities whose bits are known, and of a run on disk."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.commands import ROOT, command

from vaebm_jax import create_states, energy_fn
from vaebm_jax.config import ConditionConfig, DataConfig, EnergyConfig, to_json
from vaebm_jax.data.batch import to_uint8
from vaebm_jax.evaluation import geometry
from vaebm_jax.evaluation.likelihood import (
    dequantized,
    evaluate_likelihood,
    likelihood_of,
    refuse,
    table,
)
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.ais import Bracket, Estimate
from vaebm_jax.training import checkpoints


def bracket(log_z, samples=None):
    exact = Estimate(log_z, 0.0, 256.0)
    samples = exact if samples is None else Estimate(samples, 0.01, 256.0)
    return Bracket(exact, {'forward': exact, 'samples': samples}, None, 0.6)


@pytest.mark.parametrize('is_trained_so, width', [(True, 2.0), (False, 256 / 127.5)])
def test_uniform_images_of_8_bits_have_8_bits(is_trained_so, width):
    """The density is uniform over all the bins: U = 0 there and log Z = D log(width)."""
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8)
    settings = DataConfig(dequantize=is_trained_so)
    x, bin_width = dequantized(np.random.default_rng(1), images, settings)
    edges = (-1.0, 1.0) if is_trained_so else (-1.0 - 1 / 255, 1.0 + 1 / 255)
    assert edges[0] <= x.min() < edges[0] + bin_width and edges[1] - bin_width < x.max() <= edges[1]
    assert edges[1] - edges[0] == pytest.approx(width)
    result = likelihood_of(np.zeros(50), bracket(64 * np.log(width)), 64, bin_width)
    for bound in ('lower', 'upper'):
        assert result['bits_per_dimension'][bound] == pytest.approx(8.0, abs=1e-12)
    assert result['nats']['lower'] == pytest.approx(-64 * np.log(width))


def test_noise_stays_within_a_bin_and_points_stay_as_they_are():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    for is_trained_so in (True, False):
        settings = DataConfig(dequantize=is_trained_so)
        draws = [dequantized(np.random.default_rng(seed), images, settings) for seed in (0, 0, 1)]
        (x, bin_width), (again, _), (other, _) = draws
        np.testing.assert_array_equal(x, again)
        assert np.any(x != other)
        bins = np.floor((x.astype(np.float64) + 1.0) / bin_width + (0.0 if is_trained_so else 0.5))
        assert np.mean(bins == images) > 0.99  # But for what lies on an edge in float32.
    x, bin_width = dequantized(np.random.default_rng(0), images, DataConfig(headroom=0.25))
    assert np.mean(to_uint8(x) == images) > 0.99 and bin_width == 1 / 127.5
    for black_or_white in (x.ravel()[0] + 1.25, x.ravel()[255] - 1.25):
        assert abs(black_or_white) <= bin_width / 2 + 1e-6
    points = np.random.default_rng(0).normal(size=(5, 1, 1, 2)).astype(np.float32)
    x, bin_width = dequantized(np.random.default_rng(0), points, DataConfig())
    assert x is points and bin_width == 1.0


def test_intervals_errors_and_warnings():
    energies = np.array([10.0, 14.0])
    found = bracket(-5.0, samples=-4.0)
    result = likelihood_of(energies, found, 2, 0.5)
    assert result['log_z']['lower'] == -5.0 and result['log_z']['upper'] == -4.0
    nats = {'lower': -12.0 + 4.0, 'upper': -12.0 + 5.0, 'standard_error': 2.0}
    assert result['nats'] == pytest.approx(nats)
    bits = {name: value / (2 * np.log(2.0)) for name, value in nats.items()}
    expected = {
        'lower': -bits['upper'] + 1.0,
        'upper': -bits['lower'] + 1.0,
        'standard_error': bits['standard_error'],
    }
    assert result['bits_per_dimension'] == pytest.approx(expected)
    assert 'warning' not in result
    low = likelihood_of(energies, bracket(-5.0, samples=-9.0), 2, 0.5)
    assert low['log_z']['upper'] == -5.0 and 'they are not samples of p' in low['warning']
    few = bracket(-5.0)._replace(forward=Estimate(-5.0, 1.0, 1.2))
    few = likelihood_of(energies, few, 2, 0.5)
    assert few['warning'].startswith('the weight is on 1.2 chains')
    lines = table(few | {'num_chains': 256})
    assert lines[0].startswith('log Z, forward ')
    assert lines[0].endswith(' -5.000 +- 1 nats, effective sample size 1.2 of 256')
    assert lines[-1].startswith('warning: the weight is on 1.2 chains')


@pytest.mark.parametrize(
    'change, message',
    [
        ({'condition': ConditionConfig(kind='center_hole')}, "condition.kind='center_hole'"),
        ({'method': 'vae'}, "method='vae'"),
        ({'energy': EnergyConfig(reference_std=0.0, scale=1.0)}, 'energy.reference_std=0'),
    ],
)
def test_what_has_no_likelihood_is_refused(tiny_config, change, message):
    with pytest.raises(UserError, match=f'--mode=likelihood needs .*{message}'):
        refuse(dataclasses.replace(tiny_config, **change))


def test_the_mode_on_a_run_whose_energy_is_its_reference_term(tiny_config, tmp_path, capfd):
    """f = 0: p = N(0, s² I), and what --mode=evaluate wrote stays."""
    config = dataclasses.replace(tiny_config, energy=EnergyConfig(reference_std=0.5))
    config.langevin.num_steps, config.langevin.step_size = 20, 0.5
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'config.json').write_text(to_json(config))
    (run / 'evaluation.json').write_text('{}')
    states = jax.jit(create_states, static_argnames='config')(jax.random.key(0), config)
    flat = jax.tree.map(jnp.zeros_like, states.energy.params)
    energy = states.energy.replace(params=flat, ema_params=jax.tree.map(jnp.copy, flat))
    with checkpoints.checkpoint_manager(run) as manager:
        checkpoints.save(manager, states.advance(energy=energy))
    result = evaluate_likelihood(config, run, num_samples=64, num_temperatures=200)
    said = capfd.readouterr().err
    assert said.index('right near its samples alone') < said.index('log Z, forward')
    found = json.loads((run / 'likelihood.json').read_text())
    assert found == result and (run / 'evaluation.json').read_text() == '{}'
    log_z = 64 * 0.5 * np.log(2 * np.pi * 0.5**2)
    for name in ('forward', 'reverse_forward', 'reverse_samples'):
        estimate = found['log_z'][name]
        assert abs(estimate['log_z'] - log_z) < 4.0 * estimate['standard_error'] + 0.1 < 1.0
    assert found['num_chains'] == 64 and found['num_temperatures'] == 200
    assert found['num_images'] == 297 and found['lowest_acceptance'] > 0.3
    width = found['nats']['upper'] - found['nats']['lower']
    assert width == pytest.approx(found['log_z']['upper'] - found['log_z']['lower'], abs=1e-6)
    bits = found['bits_per_dimension']
    expected = -found['nats']['upper'] / (64 * np.log(2.0)) + np.log2(127.5)
    assert bits['lower'] == pytest.approx(expected)


@pytest.mark.slow
def test_the_bracket_of_a_trained_toy_holds_the_grids_log_z(tmp_path):
    toy = f'--config={ROOT}/configs/toy2d.py'
    for arguments in ([toy], ['--mode=likelihood', '--num_samples=2000']):
        result = command(*arguments, '--workdir=run', cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / 'run/likelihood.json').read_text())
    energy = energy_fn(*checkpoints.load(tmp_path / 'run'))
    grid = geometry.make_grid()
    energies = np.asarray(energy(grid.points.reshape(-1, 1, 1, 2).astype(np.float32)), np.float64)
    log_z = geometry.log_partition(energies, grid.cell)
    for name in ('forward', 'reverse_forward', 'reverse_samples'):
        estimate = found['log_z'][name]
        assert abs(estimate['log_z'] - log_z) < min(0.02, 4.0 * estimate['standard_error'])
    # No bits of a bin: points have none.
    nats = found['nats']['upper']
    assert found['bits_per_dimension']['lower'] == pytest.approx(-nats / (2 * np.log(2.0)))
