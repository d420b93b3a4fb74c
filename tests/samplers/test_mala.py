"""The Metropolis test against laws of which the chain without it misses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import langevin_sample, mala_sample
from vaebm_jax.samplers.keys import chain_keys
from vaebm_jax.samplers.mala import acceptance, mala_step, point_at

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


def half_gaussian(elsewhere):
    """x²/2 of positive numbers: mean (2/π)^½, variance 1 - 2/π."""
    return lambda x: jnp.sum(jnp.where(x > 0.0, 0.5 * x**2, elsewhere), axis=1)


def assert_half_gaussian(x):
    assert np.min(x) > 0.0
    assert_moments(x, (2.0 / np.pi) ** 0.5, 1.0 - 2.0 / np.pi, kurtosis=3.9)


def without_gradient(x):
    """x²/2, finite everywhere, whose gradient is NaN of negative numbers."""
    return jnp.sum(0.5 * x**2 + 0.0 * jnp.sqrt(jnp.maximum(x, 0.0)), axis=1)


NOWHERE = pytest.mark.parametrize('elsewhere', [np.inf, -np.inf, np.nan])


@NOWHERE
def test_where_the_energy_is_not_finite_no_chain_goes(elsewhere):
    energy, x = half_gaussian(elsewhere), jnp.ones((20_000, 1))
    x, info = mala_sample(KEY, energy, x, num_steps=60, step_size=0.8)
    assert_half_gaussian(x)
    assert np.all(np.isfinite(info['energy']))


def test_nor_where_the_gradient_is_not():
    assert np.isfinite(without_gradient(-jnp.ones((1, 1))))[0]
    assert np.isnan(jax.grad(lambda x: without_gradient(x)[0])(-jnp.ones((1, 1))))
    x, _ = mala_sample(KEY, without_gradient, jnp.ones((20_000, 1)), num_steps=60, step_size=0.8)
    assert_half_gaussian(x)


@pytest.mark.parametrize('energy', [*map(half_gaussian, (np.inf, -np.inf, np.nan)), jnp.sqrt])
def test_chains_that_start_there_leave(energy):
    """Also where the gradient tells no way, as that of a square root of less than 0."""
    x = jnp.full((20_000, 1), -0.5)
    if energy is jnp.sqrt:
        energy = lambda x: jnp.sum(0.5 * x**2 + 0.0 * jnp.sqrt(x), axis=1)
    x, info = mala_sample(KEY, energy, x, num_steps=80, step_size=0.8)
    assert_half_gaussian(x)
    first = np.argmax(np.asarray(info['accepted']), axis=0)  # None comes back.
    steps = np.arange(80)[:, np.newaxis]
    assert np.all(np.isfinite(info['energy']) == (steps >= first))


def test_chains_that_start_at_an_edge_of_the_gradient_leave():
    energy = lambda x: jnp.linalg.norm(x, axis=1)  # Its gradient at 0 is NaN.
    x, info = mala_sample(KEY, energy, jnp.zeros((8, 2)), num_steps=20, step_size=0.5)
    assert np.all(np.any(info['accepted'], axis=0)) and np.all(np.isfinite(x))


@pytest.mark.parametrize(
    'energy', [*map(half_gaussian, (np.inf, -np.inf, np.nan)), without_gradient]
)
def test_acceptance_of_a_proposal_that_is_not_finite_is_0(energy):
    x = jnp.full((500, 1), 0.5)
    result = np.asarray(acceptance(KEY, energy, x, step_size=0.9))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(500))
    noise = np.asarray(jax.vmap(lambda key: jax.random.normal(key, (1,)))(keys))[:, 0]
    goes_out = 0.5 - 0.5 * 0.9**2 * 0.5 + 0.9 * noise <= 0.0
    assert 100 < goes_out.sum() < 400
    assert np.all(result[goes_out] == 0.0) and np.all(result[~goes_out] > 0.0)


def test_acceptance_of_a_gaussian_by_hand():
    """U = x²/(2 s²): both densities of the Metropolis test written out in float64."""
    s, step_size = 0.7, 0.9
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    energy_fn = lambda x: jnp.sum(jnp.square(x), axis=1) / (2 * s**2)
    result = acceptance(KEY, energy_fn, x, step_size=step_size)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(200))
    noise = np.asarray(jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys), np.float64)
    a = 1.0 - step_size**2 / (2 * s**2)
    y = a * x + step_size * noise
    log_p = lambda x: -np.sum(x**2, axis=1) / (2 * s**2)
    log_q = lambda y, x: -np.sum((y - a * x) ** 2, axis=1) / (2 * step_size**2)
    expected = np.minimum(1.0, np.exp(log_p(y) - log_p(x) + log_q(x, y) - log_q(y, x)))
    assert 0.1 < expected.mean() < 0.99
    np.testing.assert_allclose(result, expected, rtol=2e-4)


def test_small_steps_are_accepted():
    """Of a skewed energy, where the gradient is not linear; larger ones less and less."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(500, 2)), jnp.float32)
    energy_fn = lambda x: jnp.sum(jnp.exp(x) - x, axis=1)
    rates = [
        float(acceptance(KEY, energy_fn, x, step_size=step_size).mean())
        for step_size in (0.01, 0.5, 2.0)
    ]
    assert rates[0] > 0.999 and rates[0] > rates[1] > rates[2]


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
