"""Draws belong to a chain's own key, so splitting the chains over devices changes nothing."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from helpers.runs import train

from vaebm_jax.figures import grids
from vaebm_jax.methods.chains import ancestral_langevin_sample
from vaebm_jax.models.apply import averaged
from vaebm_jax.samplers.keys import branch, chain_keys, is_per_chain, normal
from vaebm_jax.training.loop import run_keys

TYPED = jax.random.key(3)
RAW = jax.random.PRNGKey(3)


def data(keys):
    """The numbers of typed or raw keys."""
    return np.asarray(jax.random.key_data(keys))


@pytest.mark.parametrize('key', [TYPED, RAW], ids=['typed', 'raw'])
def test_is_one_a_chain(key):
    assert not is_per_chain(key)
    assert is_per_chain(jax.random.split(key, 1))
    assert is_per_chain(jax.random.split(key, 2))  # raw: [2, 2], no mistaking for [2]


@pytest.mark.parametrize('key', [TYPED, RAW], ids=['typed', 'raw'])
@pytest.mark.parametrize('first', [0, 5])
def test_chain_keys_are_folded_by_the_global_index(key, first):
    keys = chain_keys(key, 4, first)
    expected = [data(jax.random.fold_in(key, first + i)) for i in range(4)]
    np.testing.assert_array_equal(data(keys), expected)
    assert keys.dtype == key.dtype


@pytest.mark.parametrize('key', [TYPED, RAW], ids=['typed', 'raw'])
def test_two_devices_hold_the_chain_keys_of_one(key):
    halves = [data(chain_keys(key, 3, device * 3)) for device in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), data(chain_keys(key, 6)))


@pytest.mark.parametrize('key', [TYPED, RAW], ids=['typed', 'raw'])
def test_keys_one_a_chain_stay(key):
    keys = jax.random.split(key, 3)
    np.testing.assert_array_equal(data(chain_keys(keys, 3, first=7)), data(keys))
    with pytest.raises(ValueError):
        chain_keys(keys, 4)


@pytest.mark.parametrize('key', [TYPED, RAW], ids=['typed', 'raw'])
@pytest.mark.parametrize('shape', [(), (5,), (2, 3, 1)])
def test_each_row_of_normal_is_its_own_keys(key, shape):
    keys = chain_keys(key, 3)
    noise = normal(keys, shape)
    assert noise.shape == (3, *shape)
    for i in range(3):
        np.testing.assert_allclose(noise[i], jax.random.normal(keys[i], shape), rtol=1e-6)


@pytest.mark.parametrize('generator', ['threefry2x32', 'rbg'])
def test_normal_across_chains_follows_the_normal_distribution(generator):
    num_chains = 20_000
    key = jax.random.key(3, impl=generator)
    noise = np.asarray(normal(chain_keys(key, num_chains), (2,)))
    law = np.array([0.5 * math.erfc(-x / math.sqrt(2.0)) for x in np.sort(noise[:, 0])])
    # Kolmogorov's distance passes 1.95 / sqrt(n) once in a thousand.
    assert np.max(np.abs(law - np.arange(1, num_chains + 1) / num_chains)) < 1.95 / num_chains**0.5
    # Neither pixels of a chain nor neighbouring chains are correlated.
    for other in (noise[:, 1], np.roll(noise[:, 0], 1)):
        assert abs(np.mean(noise[:, 0] * other)) < 4.0 / num_chains**0.5


@pytest.mark.parametrize('generator', ['threefry2x32', 'rbg'])
def test_no_use_of_a_seed_draws_with_the_keys_of_another(tiny_config, generator):
    """Parameters, order, pictures and steps of a run, its splits and chains; and what comes after.

    In JAX `split(key)[i]` is `fold_in(key, i)`, so that small numbers meet.
    """
    seed = jax.random.key(tiny_config.seed, impl=generator)
    config = dataclasses.replace(tiny_config, generator=generator)
    names = ('generate', 'recover', 'interpolate', 'diagnostics', 'likelihood')
    numbers = {tuple(data(key).tolist()) for key in run_keys(config, 0)}
    numbers |= set(map(tuple, data(chain_keys(seed, 2000)).tolist()))
    own = [branch(seed, name) for name in names]
    for key in own:
        own = [*own, *jax.random.split(key, 3)]
    own = [tuple(data(key).tolist()) for key in own]
    assert len(set(own)) == len(own) == 4 * len(names)
    assert not numbers & set(own)


def test_what_training_draws_stays_as_it_was(tiny_config, tmp_path, monkeypatch):
    """Its keys are the first splits of the seed, and so are those of every picture."""
    expected = jax.random.split(jax.random.key(tiny_config.seed), 4)
    for key, right in zip(run_keys(tiny_config, 0), expected, strict=True):
        np.testing.assert_array_equal(data(key), data(right))
    drawn = []
    side_by_side = grids.side_by_side
    monkeypatch.setattr(
        grids, 'side_by_side', lambda path, parts: drawn.append(parts) or side_by_side(path, parts)
    )
    states = train(dataclasses.replace(tiny_config, sample_every=3), tmp_path)
    sample = jax.jit(ancestral_langevin_sample, static_argnums=(3, 4))
    keys = jax.random.split(expected[2])
    right = sample(*keys, averaged(states), tiny_config, 64)[:2]
    assert len(drawn) == 2
    for images, sampled in zip(drawn[1].values(), right, strict=True):
        np.testing.assert_allclose(images, sampled, atol=1e-5)
