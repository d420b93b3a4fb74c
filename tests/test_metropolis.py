"""The Metropolis test against laws of which the chain without it misses."""

import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax import langevin_sample, mala_sample
from vaebm_jax.keys import chain_keys
from vaebm_jax.langevin import acceptance
from vaebm_jax.metropolis import mala_step, point_at

KEY = jax.random.key(0)


def assert_moments(samples, mean, variance, kurtosis=3.0):
    """Mean and variance of independent samples, to five standard errors."""
    samples = np.asarray(samples, np.float64).ravel()
    n = samples.size
    assert abs(samples.mean() - mean) < 5.0 * (variance / n) ** 0.5
    assert abs(samples.var() - variance) < 5.0 * variance * ((kurtosis - 1.0) / n) ** 0.5


def test_the_variance_is_the_targets_at_a_large_step():
    """Where that of the chain without a test is s²/(1 - δ²/4s²), 56 % more."""
    std, delta = 0.5, 0.6
    energy = lambda x: jnp.sum(jnp.square(x), axis=1) / (2.0 * std**2)
    x = std * jax.random.normal(jax.random.key(1), (10_000, 2))
    biased, _ = langevin_sample(KEY, energy, x, num_steps=30, step_size=delta)
    assert_moments(biased, 0.0, std**2 / (1.0 - delta**2 / (4.0 * std**2)))
    samples, info = mala_sample(KEY, energy, x, num_steps=30, step_size=delta)
    assert_moments(samples, 0.0, std**2)
    assert 0.5 < np.mean(info['accepted']) < 0.95
    np.testing.assert_allclose(info['energy'][-1], energy(samples), rtol=1e-5)


def test_it_finds_a_skewed_law_from_afar():
    """The logarithm of a Gamma(2): mean 1 - γ, variance π²/6 - 1."""
    energy = lambda x: jnp.sum(jnp.exp(x) - 2.0 * x, axis=1)
    samples, _ = mala_sample(KEY, energy, jnp.full((20_000, 1), 2.0), num_steps=60, step_size=0.9)
    assert_moments(samples, 1.0 - np.euler_gamma, np.pi**2 / 6.0 - 1.0, kurtosis=4.2)


def test_where_the_energy_is_not_finite_no_chain_goes():
    """Halves of Gaussians, mean (2/π)^½: one energy ends in infinity, one in what is no number."""

    def energy(x):
        values = jnp.where(x > 0.0, 0.5 * x**2, jnp.array([[jnp.inf, jnp.nan]]))
        return jnp.sum(values, axis=1)

    x, _ = mala_sample(KEY, energy, jnp.ones((10_000, 2)), num_steps=60, step_size=0.8)
    assert np.min(x) > 0.0
    assert_moments(x, (2.0 / np.pi) ** 0.5, 1.0 - 2.0 / np.pi, kurtosis=3.9)


def test_as_many_are_accepted_as_the_probability_says():
    energy = lambda x: jnp.sum(x**4, axis=1)
    x = jax.random.normal(KEY, (20_000, 2))
    keys = chain_keys(jax.random.key(2), len(x))
    _, is_accepted = mala_step(keys, energy, point_at(energy, x), 0.4)
    expected = acceptance(jax.random.key(3), energy, x, step_size=0.4)
    assert abs(np.mean(is_accepted) - np.mean(expected)) < 5.0 * (2 * 0.25 / len(x)) ** 0.5


def test_a_chain_depends_on_its_own_key_alone():
    energy = lambda x: jnp.sum(jnp.square(x), axis=1)
    x = jax.random.normal(KEY, (6, 3))
    keys = chain_keys(KEY, 6)
    run = jax.jit(lambda keys, x: mala_sample(keys, energy, x, num_steps=9, step_size=0.5)[0])
    there, back = run(keys, x), run(keys[::-1], x[::-1])
    np.testing.assert_array_equal(there, back[::-1])
    assert np.any(np.asarray(there) != np.asarray(x))
