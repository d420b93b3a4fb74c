"""Losses with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax.methods.losses import (
    absolute_error,
    bce,
    bits,
    gradient_penalty,
    least_squares,
    pinball,
)

KEY = jax.random.key(0)


def test_bce_of_logits():
    assert float(bce(jnp.zeros(()), True)) == pytest.approx(np.log(2))
    assert float(bce(jnp.zeros(()), False)) == pytest.approx(np.log(2))
    logits = jnp.array([-200.0, -3.0, 0.5, 4.0, 200.0])
    shares = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    slope = lambda is_data: jax.vmap(jax.grad(lambda logit: bce(logit, is_data)))(logits)
    np.testing.assert_allclose(slope(True), shares - 1, atol=1e-6)
    np.testing.assert_allclose(slope(False), shares, atol=1e-6)
    np.testing.assert_allclose(bce(logits[1:4], True), -np.log(shares[1:4]), rtol=1e-5)
    np.testing.assert_allclose(bce(logits[1:4], False), -np.log(1 - shares[1:4]), rtol=1e-5)


def test_the_best_critic_of_two_gaussians():
    """Of N(0, 1) and N(1.5, 1) the best logit is linear, and costs 2 log 2 - 2 JS."""
    x = np.linspace(-10, 12, 20_001)
    density = lambda mean: np.exp(-0.5 * (x - mean) ** 2) / np.sqrt(2 * np.pi)
    data, samples = density(1.5), density(0.0)
    integral = lambda values: jnp.sum(values) * (x[1] - x[0])

    def cost(weights):
        logits = weights[0] * x + weights[1]
        return integral(data * bce(logits, True)) + integral(samples * bce(logits, False))

    with jax.enable_x64(True):
        best = jnp.array([1.5, -(1.5**2) / 2])
        np.testing.assert_allclose(jax.grad(cost)(best), 0.0, atol=1e-8)
        mixture = (data + samples) / 2
        divergence = sum(integral(p * np.log(p / mixture)) / 2 for p in (data, samples))
        assert float(cost(best)) == pytest.approx(2 * np.log(2) - 2 * float(divergence))


def test_least_squares():
    data, samples = jnp.array([0.3, 0.8]), jnp.array([0.1, -0.4])
    loss = least_squares(data, True) + least_squares(samples, False)
    np.testing.assert_allclose(loss, [0.49 + 0.01, 0.04 + 0.16], rtol=1e-6)


def test_the_best_least_squares_critic():
    """Its output is the share of data; where it is a half it costs a half, the generator a fourth.

    The density of data is p, that of samples q.
    """
    p, q = jnp.array([0.2, 0.5, 0.6]), jnp.array([0.4, 0.5, 0.1])
    cost = lambda outputs: p * least_squares(outputs, True) + q * least_squares(outputs, False)
    np.testing.assert_allclose(jax.grad(lambda f: cost(f).sum())(p / (p + q)), 0.0, atol=1e-7)
    assert float(cost(jnp.array(0.5))[1] / 0.5) == pytest.approx(0.5)
    assert float(least_squares(jnp.array(0.5), True)) == 0.25


def test_the_least_absolute_error_of_a_constant_is_at_the_median():
    truth = jax.random.normal(KEY, (7, 4, 4, 3))
    counts = jnp.zeros((7, 4, 4, 1), bool).at[:, 1:3, 1:4].set(True)
    cost = lambda image: absolute_error(jnp.broadcast_to(image, truth.shape), truth, counts)
    median = jnp.median(truth, axis=0, keepdims=True)
    by_hand = np.abs(np.asarray(median - truth))[:, 1:3, 1:4].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(cost(median), by_hand, rtol=1e-5)
    for change in (-0.1, -0.01, 0.01, 0.1):
        assert cost(median + change).mean() > cost(median).mean()
    np.testing.assert_array_equal(absolute_error(truth, truth, counts), np.zeros(7))
    elsewhere = jnp.where(counts, truth, 9.0)
    np.testing.assert_array_equal(absolute_error(elsewhere, truth, counts), np.zeros(7))


def test_the_penalty_of_a_linear_energy():
    """`(|w| - 1)²` everywhere; its gradient is `2 (|w| - 1) w / |w|`."""
    w = jax.random.normal(KEY, (4, 4, 3))
    x = jax.random.normal(jax.random.key(1), (5, 4, 4, 3))
    penalty = lambda w: gradient_penalty(lambda x: jnp.sum(w[jnp.newaxis] * x, (1, 2, 3)), x)
    norm = jnp.linalg.norm(w)
    np.testing.assert_allclose(penalty(w), np.full(5, (norm - 1) ** 2), rtol=1e-5)
    grad = jax.grad(lambda w: jnp.mean(penalty(w)))(w)
    np.testing.assert_allclose(grad, 2 * (norm - 1) * w / norm, rtol=1e-4)


def test_the_penalty_of_a_quadratic_energy():
    x = jax.random.normal(KEY, (6, 4, 4, 3))
    energy_fn = lambda x: 0.35 * jnp.sum(jnp.square(x), axis=(1, 2, 3))
    slopes = 0.7 * np.linalg.norm(np.reshape(x, (6, -1)), axis=1)
    np.testing.assert_allclose(gradient_penalty(energy_fn, x), (slopes - 1) ** 2, rtol=1e-5)


def test_a_constant_energy_has_penalty_1_and_a_finite_gradient():
    x = jnp.ones((2, 4, 4, 1))
    mean = lambda w: jnp.mean(gradient_penalty(lambda x: w * jnp.sum(x, axis=(1, 2, 3)), x))
    value, grad = jax.value_and_grad(mean)(0.0)
    assert float(value) == pytest.approx(1.0, abs=1e-5)
    assert float(grad) == 0.0


@pytest.mark.parametrize('num_levels', [2, 17, 256])
def test_bits_of_equal_logits(num_levels):
    levels = np.random.default_rng(0).integers(0, num_levels, (3, 4, 5, 2))
    got = bits(jnp.zeros((3, 4, 5, 2, num_levels)), jnp.asarray(levels))
    np.testing.assert_allclose(got, np.full(3, np.log2(num_levels)), rtol=1e-6)


def test_bits_under_a_histogram_are_its_entropy():
    levels = np.random.default_rng(0).binomial(6, 0.3, (1, 8, 8, 3))
    share = np.bincount(levels.ravel(), minlength=8) / levels.size
    logits = np.broadcast_to(np.log(np.maximum(share, 1e-30)), (*levels.shape, 8))
    entropy = -np.sum(share[share > 0] * np.log2(share[share > 0]))
    got = bits(jnp.asarray(logits, jnp.float32), jnp.asarray(levels))
    np.testing.assert_allclose(got, [entropy], rtol=1e-5)


@pytest.mark.parametrize('tau', [0.1, 0.5, 0.83])
def test_pinball_is_least_at_the_quantile(tau):
    x = np.sort(np.random.default_rng(0).normal(size=4001))
    with jax.enable_x64(True):
        candidates = np.quantile(x, tau) + np.linspace(-0.05, 0.05, 2001)
        for width, tolerance in ((0.0, 5e-5), (0.002, 1e-3)):
            losses = [pinball(x - q, np.full_like(x, tau), width).mean() for q in candidates[::20]]
            best = candidates[::20][np.argmin(losses)]
            assert abs(best - np.quantile(x, tau)) <= 1e-3 + tolerance


def test_wide_huber_is_biased():
    """Quantile 0.1 of N(0, 1) is -1.28; with width 1 the least is near -1.0."""
    x = np.random.default_rng(0).normal(size=4001)
    candidates = np.linspace(-1.6, -0.8, 401)
    losses = [pinball(x - q, np.full_like(x, 0.1), 1.0).mean() for q in candidates]
    best = candidates[np.argmin(losses)]
    assert best > np.quantile(x, 0.1) + 0.2


def test_pinball_values():
    error, tau = jnp.array([0.5, -0.5, 0.001, 0.0]), jnp.array([0.9, 0.9, 0.9, 0.9])
    np.testing.assert_allclose(pinball(error, tau), [0.45, 0.05, 0.0009, 0.0], rtol=1e-5)
    # u² / (2 k) = 0.00025 at u = 0.001; |u| - k/2 at 0.5.
    expected = [0.9 * 0.499, 0.1 * 0.499, 0.9 * 0.00025, 0.0]
    np.testing.assert_allclose(pinball(error, tau, 0.002), expected, rtol=1e-5)


@pytest.mark.parametrize(
    'quantile, expected',
    [
        (jax.scipy.stats.norm.ppf, 1 / (2 * np.sqrt(np.pi))),
        (lambda tau: tau, 1 / 12),
    ],
)
def test_mean_pinball_at_the_truth(quantile, expected):
    """Half the CRPS of the truth itself, by a midpoint rule over x = Q(s) and tau."""
    with jax.enable_x64(True):
        tau = (np.arange(2000) + 0.5) / 2000
        q = quantile(jnp.asarray(tau))
        error = q[:, np.newaxis] - q[np.newaxis]
        mean = pinball(error, jnp.broadcast_to(tau, error.shape)).mean()
    np.testing.assert_allclose(mean, expected, rtol=2e-3)


def test_excess_pinball_is_the_quantile_divergence():
    """N(0, 1) against N(0.5, 1.3²): 0.035668."""
    with jax.enable_x64(True):
        tau = (np.arange(2000) + 0.5) / 2000
        q = jax.scipy.stats.norm.ppf(jnp.asarray(tau))
        loss = lambda other: pinball(
            q[:, np.newaxis] - other[np.newaxis], jnp.broadcast_to(tau, (2000, 2000))
        ).mean()
        excess = loss(0.5 + 1.3 * q) - loss(q)
    np.testing.assert_allclose(excess, 0.035668, rtol=5e-3)
