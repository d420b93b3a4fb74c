"""Draws belong to a chain's own key, so splitting the chains over devices changes nothing."""

import math

import jax
import numpy as np
import pytest

from vaebm_jax import keys as draws

TYPED = jax.random.key(3)
RAW = jax.random.PRNGKey(3)


def data(keys):
    """The numbers of typed or raw keys."""
    return np.asarray(jax.random.key_data(keys))


@pytest.mark.parametrize('key', [TYPED, RAW], ids=['typed', 'raw'])
def test_is_one_a_chain(key):
    assert not draws.is_one_a_chain(key)
    assert draws.is_one_a_chain(jax.random.split(key, 1))
    assert draws.is_one_a_chain(jax.random.split(key, 2))  # raw: [2, 2], no mistaking for [2]


@pytest.mark.parametrize('key', [TYPED, RAW], ids=['typed', 'raw'])
@pytest.mark.parametrize('first', [0, 5])
def test_chain_keys_are_folded_by_the_global_index(key, first):
    keys = draws.chain_keys(key, 4, first)
    expected = [data(jax.random.fold_in(key, first + i)) for i in range(4)]
    np.testing.assert_array_equal(data(keys), expected)
    assert keys.dtype == key.dtype


@pytest.mark.parametrize('key', [TYPED, RAW], ids=['typed', 'raw'])
def test_two_devices_hold_the_chain_keys_of_one(key):
    halves = [data(draws.chain_keys(key, 3, device * 3)) for device in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), data(draws.chain_keys(key, 6)))


@pytest.mark.parametrize('key', [TYPED, RAW], ids=['typed', 'raw'])
def test_keys_one_a_chain_stay(key):
    keys = jax.random.split(key, 3)
    np.testing.assert_array_equal(data(draws.chain_keys(keys, 3, first=7)), data(keys))
    with pytest.raises(AssertionError):
        draws.chain_keys(keys, 4)


@pytest.mark.parametrize('key', [TYPED, RAW], ids=['typed', 'raw'])
@pytest.mark.parametrize('shape', [(), (5,), (2, 3, 1)])
def test_each_row_of_normal_is_its_own_keys(key, shape):
    keys = draws.chain_keys(key, 3)
    noise = draws.normal(keys, shape)
    assert noise.shape == (3, *shape)
    for i in range(3):
        np.testing.assert_allclose(noise[i], jax.random.normal(keys[i], shape), rtol=1e-6)


@pytest.mark.parametrize('generator', ['threefry2x32', 'rbg'])
def test_normal_across_chains_follows_the_normal_distribution(generator):
    num_chains = 20_000
    key = jax.random.key(3, impl=generator)
    noise = np.asarray(draws.normal(draws.chain_keys(key, num_chains), (2,)))
    law = np.array([0.5 * math.erfc(-x / math.sqrt(2.0)) for x in np.sort(noise[:, 0])])
    # Kolmogorov's distance passes 1.95 / sqrt(n) once in a thousand.
    assert np.max(np.abs(law - np.arange(1, num_chains + 1) / num_chains)) < 1.95 / num_chains**0.5
    # Neither pixels of a chain nor neighbouring chains are correlated.
    for other in (noise[:, 1], np.roll(noise[:, 0], 1)):
        assert abs(np.mean(noise[:, 0] * other)) < 4.0 / num_chains**0.5
