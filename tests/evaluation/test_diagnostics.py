"""Energies of sets whose order is known, and chains whose law is."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import create_states
from vaebm_jax.config import DataConfig
from vaebm_jax.evaluation.diagnostics import (
    auroc,
    diagnose,
    energies_of,
    energy_table,
    histogram,
    image_sets,
    lines,
    long_chains,
    metropolis,
)


@pytest.fixture
def states(tiny_config):
    """f = 0: the energy is the reference term alone."""
    states = jax.jit(create_states, static_argnames='config')(jax.random.key(0), tiny_config)
    flat = jax.tree.map(jnp.zeros_like, states.energy.params)
    return states.replace(energy=states.energy.replace(params=flat))


def test_auroc_of_scores_in_order():
    low, high = np.arange(10.0), np.arange(10.0) + 100.0
    assert auroc(low, high) == 1.0
    assert auroc(high, low) == 0.0
    assert auroc(low, low) == 0.5
    assert auroc(low, np.array([np.inf])) is None


def test_the_energy_of_the_reference_term_is_its_own_score(tiny_config, states):
    rng = np.random.default_rng(0)
    sets = {
        'test': rng.uniform(-0.5, 0.5, (40, 8, 8, 1)).astype(np.float32),
        'wide': rng.uniform(-1.0, 1.0, (50, 8, 8, 1)).astype(np.float32),
    }
    energies = {name: energies_of(states, tiny_config, x) for name, x in sets.items()}
    expected = np.sum(sets['wide'].astype(np.float64) ** 2, axis=(1, 2, 3)) / (2 * 0.016**2)
    np.testing.assert_allclose(energies['wide'], expected, rtol=1e-5)
    table = energy_table(sets, energies, 0.0)
    assert table['wide']['auroc'] == table['wide']['auroc_reference_term'] == 1.0
    assert table['wide']['num_images'] == 50 and 'auroc' not in table['test']
    np.testing.assert_allclose(table['wide']['mean'], expected.mean(), rtol=1e-5)


def test_lines_show_what_was_measured():
    found = {
        'energies': {
            'test': {'num_images': 297, 'mean': -82690.0, 'std': 2100.0},
            'uniform noise': {'num_images': 40, 'mean': 1.5e6, 'std': 7.0, 'auroc': 0.9876},
            'inverted': {'num_images': 40, 'mean': float('nan'), 'std': 7.0, 'auroc': None},
        },
        'long_chains': [{'steps': 0, 'energy': 5.0}, {'steps': 10, 'energy': -3.25}],
        'acceptance': {'mean': 0.694, 'step_size': 0.006, 'num_chains': 64},
    }
    head, *rows, chains, accepted = lines(found)
    assert head.split() == 'energies in nats images mean std AUROC to test'.split()
    assert [row.split() for row in rows] == [
        ['test', '297', '-8.269e+04', '2.1e+03'],
        ['uniform', 'noise', '40', '1.5e+06', '7', '0.988'],
        ['inverted', '40', 'nan', '7'],
    ]
    assert chains == 'energy of long chains: 5 after 0, -3.25 after 10 steps'
    assert accepted == (
        'a Metropolis test accepts 69.4% of the steps of 0.006 from 64 refined samples'
    )


def test_histograms_count_everything():
    energies = {'a': np.array([0.0, 1.0, 1.5]), 'b': np.array([-3.0, 9.0])}
    result = histogram(energies)
    assert sum(result['counts']['a']) == 3 and sum(result['counts']['b']) == 2
    assert result['edges'][0] == -3.0 and result['edges'][-1] == 9.0
    assert len(result['edges']) == len(result['counts']['a']) + 1


def test_long_chains_of_the_reference_term(tiny_config, states):
    """They shrink to N(0, s²/(1 - δ²/4s²)): no pixel outside, energy half a pixel each."""
    rows = long_chains(jax.random.key(0), states, tiny_config)
    assert [row['steps'] for row in rows] == [0, 3, 30, 300]
    assert rows[0]['distance'] == 0.0 and rows[1]['distance'] < rows[2]['distance']
    step = tiny_config.langevin.step_size
    variance = 1.0 / (1.0 - step**2 / (4 * 0.016**2))
    np.testing.assert_allclose(rows[-1]['energy'], 0.5 * 64 * variance, rtol=0.05)
    assert rows[-1]['outside'] == 0.0


def test_metropolis_accepts_nearly_all_small_steps(tiny_config, states):
    """Of a Gaussian, after chains that end where it is."""
    langevin = dataclasses.replace(tiny_config.langevin, num_steps=200, step_size=0.002)
    result = metropolis(
        jax.random.key(0), states, dataclasses.replace(tiny_config, langevin=langevin)
    )
    assert result['mean'] > 0.95 and result['step_size'] == 0.002


def test_diagnose_is_whole_and_of_plain_numbers(tiny_config, states):
    samples = {'refined': np.zeros((4, 8, 8, 1), np.float32)}
    result = json.loads(json.dumps(diagnose(states, tiny_config, samples, 30)))
    names = ['train', 'test', 'shuffled pixels', 'inverted', 'uniform noise', 'refined']
    assert list(result['energies']) == names
    shuffled = result['energies']['shuffled pixels']  # Of the same norms, up to rounding.
    assert shuffled['auroc_reference_term'] == pytest.approx(0.5, abs=0.01)
    assert result['energies']['refined'] == {
        'num_images': 4,
        'mean': 0.0,
        'std': 0.0,
        'auroc': 0.0,
        'auroc_reference_term': 0.0,
    }
    assert list(result) == ['energies', 'histogram', 'long_chains', 'acceptance']


def test_sets_of_images_have_the_headroom_of_training(tiny_config):
    config = dataclasses.replace(tiny_config, data=DataConfig(headroom=0.25))
    sets = dict(image_sets(config, 20))
    for name in ('train', 'test', 'shuffled pixels', 'inverted'):
        assert np.abs(sets[name]).max() == 1.25
    np.testing.assert_array_equal(sets['inverted'], -sets['test'])
