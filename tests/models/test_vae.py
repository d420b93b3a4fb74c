"""The bound's two terms in numpy, and the whole bound where log p(x) is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax.models import vae

KEY = jax.random.key(0)


def assert_moments(samples, mean, std):
    """Columns of independent normal draws, to five standard errors; no column follows another."""
    samples = (np.asarray(samples, np.float64) - mean) / std
    n = len(samples)
    np.testing.assert_allclose(samples.mean(axis=0), 0.0, atol=5.0 / n**0.5)
    second_moments = samples.T @ samples / n
    np.testing.assert_allclose(
        second_moments, np.eye(samples.shape[1]), atol=5.0 * (2.0 / n) ** 0.5
    )
    np.testing.assert_allclose(np.mean(samples**4, axis=0), 3.0, atol=5.0 * (96.0 / n) ** 0.5)


def test_rate_against_the_formula_in_numpy():
    mean = np.array([[0.0, 0.0], [1.0, -2.0], [0.5, 0.0]])
    log_std = np.array([[0.0, 0.0], [0.0, 0.0], [-1.0, 0.7]])
    expected = [
        sum(0.5 * (m**2 + np.exp(2 * s) - 1 - 2 * s) for m, s in zip(*row, strict=True))
        for row in zip(mean, log_std, strict=True)
    ]
    assert expected[:2] == [0.0, 2.5]
    np.testing.assert_allclose(vae.rate(mean, log_std), expected, rtol=1e-5)
    one = vae.rate(np.array([[0.7]]), np.array([[-0.2]]))  # A log variance of -0.4, by quadrature.
    assert float(one[0]) == pytest.approx(0.280160, abs=1e-6)


def test_rate_is_the_expected_log_ratio():
    """KL(q || N(0, 1)) by quadrature over q."""
    mean, std = 0.8, 0.3
    z = np.linspace(mean - 8 * std, mean + 8 * std, 2001)
    q = np.exp(-((z - mean) ** 2) / (2 * std**2)) / (std * np.sqrt(2 * np.pi))
    log_ratio = np.log(q) + 0.5 * z**2 + 0.5 * np.log(2 * np.pi)
    expected = np.sum(q * log_ratio) * (z[1] - z[0])
    result = vae.rate(jnp.array([[mean]]), jnp.log(jnp.array([[std]])))
    np.testing.assert_allclose(result, [expected], rtol=1e-5)


def test_distortion_sums_over_pixels():
    x = jnp.arange(12.0).reshape(2, 3, 2, 1)
    offset = jnp.array([1.0, -2.0]).reshape(2, 1, 1, 1) * jnp.ones_like(x)
    np.testing.assert_allclose(vae.distortion(x, x + offset), [6.0, 24.0])
    with pytest.raises(AssertionError):
        vae.distortion(x, x[:1])


def test_negative_elbo_weighs_the_rate():
    loss = vae.negative_elbo(jnp.array([6.0, 24.0]), jnp.array([1.0, 2.0]), 0.5)
    np.testing.assert_allclose(loss, [6.5, 25.0])


def test_sample_prior_is_standard_normal():
    z = vae.sample_prior(KEY, 20_000, 3)
    assert z.shape == (20_000, 3)
    assert_moments(z, 0.0, 1.0)


def test_sample_prior_takes_keys_one_a_chain():
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(4))
    z = vae.sample_prior(KEY, 4, 3)
    np.testing.assert_array_equal(vae.sample_prior(keys, 4, 3), z)
    np.testing.assert_array_equal(vae.sample_prior(KEY, 2, 3), z[:2])


def test_reparameterize_moments():
    mean, log_std = np.array([0.5, -2.0]), np.array([-1.0, 0.4])
    rows = [jnp.tile(row, (20_000, 1)) for row in (mean, log_std)]
    assert_moments(vae.reparameterize(KEY, *rows), mean, np.exp(log_std))


def test_reparameterize_is_differentiable_in_both():
    mean, log_std = jnp.array([[0.5, -2.0]]), jnp.array([[-1.0, 0.4]])
    noise = (vae.reparameterize(KEY, mean, log_std) - mean) / jnp.exp(log_std)
    draw = lambda mean, log_std: jnp.sum(vae.reparameterize(KEY, mean, log_std))
    by_mean, by_log_std = jax.grad(draw, argnums=(0, 1))(mean, log_std)
    np.testing.assert_allclose(by_mean, 1.0)
    np.testing.assert_allclose(by_log_std, noise * jnp.exp(log_std), rtol=1e-5)


class LinearGaussian:
    """x = W z + b + noise, the columns of W orthogonal: the posterior is diagonal and exact."""

    def __init__(self, kl_weight):
        rng = np.random.default_rng(0)
        self.kl_weight = kl_weight
        self.variance = kl_weight / 2.0  # of the decoder, as negative_elbo has it
        self.w = np.linalg.qr(rng.normal(size=(5, 2)))[0] * [2.0, 0.5]
        self.b = rng.normal(size=5)
        self.x = rng.normal(size=(3, 5)) * 2.0
        self.posterior_std = (1.0 + np.array([4.0, 0.25]) / self.variance) ** -0.5
        self.posterior_mean = (self.x - self.b) @ self.w / self.variance * self.posterior_std**2

    def log_p(self):
        covariance = self.w @ self.w.T + self.variance * np.eye(5)
        deviation = self.x - self.b
        mahalanobis = np.sum(deviation @ np.linalg.inv(covariance) * deviation, axis=1)
        return -0.5 * (mahalanobis + np.linalg.slogdet(2.0 * np.pi * covariance)[1])

    def elbo(self, mean, std):
        """The bound by the package's terms. A quadratic's expectation is exact at sigma points."""
        corners = np.concatenate([np.eye(2), -np.eye(2)]) * 2.0**0.5
        x = jnp.asarray(self.x)
        distortions = [
            vae.distortion(x, jnp.asarray((mean + std * corner) @ self.w.T + self.b))
            for corner in corners
        ]
        rate = vae.rate(jnp.asarray(mean), jnp.log(jnp.broadcast_to(std, mean.shape)))
        loss = vae.negative_elbo(sum(distortions) / len(corners), rate, self.kl_weight)
        return -np.asarray(loss) / self.kl_weight - 2.5 * np.log(2.0 * np.pi * self.variance)


@pytest.mark.parametrize('kl_weight', [0.3, 3.0])
def test_elbo_is_log_p_at_the_exact_posterior(kl_weight):
    model = LinearGaussian(kl_weight)
    elbo = model.elbo(model.posterior_mean, model.posterior_std)
    np.testing.assert_allclose(elbo, model.log_p(), rtol=1e-5)


@pytest.mark.parametrize('shift, stretch', [(0.3, 1.0), (0.0, 1.5), (0.0, 0.6), (-0.2, 0.8)])
def test_another_posterior_loses_its_kl_to_the_exact_one(shift, stretch):
    model = LinearGaussian(kl_weight=0.3)
    std = model.posterior_std
    elbo = model.elbo(model.posterior_mean + shift, stretch * std)
    kl = np.sum(0.5 * ((shift / std) ** 2 + stretch**2 - 1.0) - np.log(stretch))
    assert kl > 0.1
    np.testing.assert_allclose(model.log_p() - elbo, kl, rtol=1e-4)
