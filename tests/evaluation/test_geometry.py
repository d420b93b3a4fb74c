"""Divergences on a grid against those of Gaussians, which are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax.data.densities import DENSITIES
from vaebm_jax.evaluation import geometry
from vaebm_jax.evaluation.geometry import make_grid

GRID = make_grid()


def log_gaussian(mean, std, points=GRID.points):
    return -0.5 * np.sum(((points - mean) / std) ** 2, axis=1) - np.log(2 * np.pi * np.prod(std))


def gaussian_kl(mean, std, other_mean, other_std):
    """Of Gaussians with diagonal covariances."""
    mean, std, other_mean, other_std = map(np.array, (mean, std, other_mean, other_std))
    ratio = std / other_std
    return 0.5 * np.sum(ratio**2 - 1 - 2 * np.log(ratio) + ((mean - other_mean) / other_std) ** 2)


FIRST, SECOND = ([0.3, -0.2], [0.5, 0.3]), ([-0.4, 0.1], [0.7, 0.6])


def test_log_partition_of_a_gaussian():
    energy = np.sum(GRID.points**2 / (2 * np.array([0.5, 0.8]) ** 2), axis=1)
    expected = np.log(2 * np.pi * 0.5 * 0.8)
    assert geometry.log_partition(energy, GRID.cell) == pytest.approx(expected, abs=1e-7)
    # Also where exp(-U) alone would overflow.
    shifted = geometry.log_partition(energy - 5000.0, GRID.cell)
    assert shifted == pytest.approx(expected + 5000.0)


def test_a_constant_in_the_energy_changes_nothing():
    energy = np.sum(GRID.points**2, axis=1)
    density = geometry.log_density(energy, GRID.cell)
    np.testing.assert_allclose(geometry.log_density(energy + 123.0, GRID.cell), density)
    assert np.exp(density).sum() * GRID.cell == pytest.approx(1.0)


def test_kl_of_gaussians():
    first, second = log_gaussian(*FIRST), log_gaussian(*SECOND)
    for p, q, of in ((first, second, (*FIRST, *SECOND)), (second, first, (*SECOND, *FIRST))):
        assert geometry.kl(p, q, GRID.cell) == pytest.approx(gaussian_kl(*of), rel=1e-5)
    assert geometry.kl(first, first, GRID.cell) == 0.0


def test_kl_to_a_density_that_is_zero_somewhere_is_infinite():
    board = DENSITIES['checkerboard'].log_density(GRID.points)
    gaussian = log_gaussian([0.0, 0.0], [1.0, 1.0])
    assert geometry.kl(gaussian, board, GRID.cell) == np.inf
    # log(1/8) against E[-log N]: E|x|² of the board is 2 * 16/12.
    expected = -np.log(8) + 0.5 * (2 * 16 / 12) + np.log(2 * np.pi)
    # The cells' midpoints leave out h²/12 a coordinate.
    expected -= GRID.cell / 12
    assert geometry.kl(board, gaussian, GRID.cell) == pytest.approx(expected, abs=1e-9)


def test_mode_weights_of_a_mixture():
    parts = [log_gaussian([2.0, 0.0], [0.2, 0.2]), log_gaussian([-2.0, 0.0], [0.3, 0.3])]
    log_p = np.logaddexp(np.log(0.7) + parts[0], np.log(0.3) + parts[1])
    modes = (GRID.points[:, 0] < 0).astype(int)
    weights = geometry.mode_weights(log_p, modes, 2, GRID.cell)
    np.testing.assert_allclose(weights, [0.7, 0.3], atol=1e-6)
    modes[GRID.points[:, 1] > 0] = -1  # The upper half is of no mode.
    np.testing.assert_allclose(geometry.mode_weights(log_p, modes, 2, GRID.cell), [0.7, 0.3])


# A linear decoder g(z) = A z + b with A's columns orthogonal, whose posterior is a Gaussian.
STD, SCALES, SHIFT = 0.4, np.array([0.9, 0.5]), np.array([0.3, -0.2])
POSTERIOR_STD = STD / np.sqrt(STD**2 + SCALES**2)


def row(values):
    return jnp.asarray(values, jnp.float32).reshape(1, -1)


def linear_decode(z):
    return z * row(SCALES) + row(SHIFT)


def encode(x, std):
    mean = (x - row(SHIFT)) * row(SCALES / (SCALES**2 + STD**2))
    return mean, jnp.zeros_like(x) + row(np.log(std))


def elbo(std):
    found = geometry.elbo(linear_decode, lambda x: encode(x, std), STD, jnp.asarray(GRID.points))
    return np.asarray(found, np.float64)


@pytest.fixture(scope='module')
def log_q():
    return geometry.decoder_log_density(jax.jit(linear_decode), STD, GRID)


def test_density_of_a_linear_decoder(log_q):
    expected = log_gaussian(SHIFT, np.sqrt(SCALES**2 + STD**2))
    near = expected > -7  # Farther out the tails that z beyond 4.5 would make are missing.
    np.testing.assert_allclose(log_q[near], expected[near], atol=2e-3)
    assert np.exp(log_q).sum() * GRID.cell == pytest.approx(1.0, abs=1e-4)


def test_with_the_true_posterior_the_elbo_is_the_log_density(log_q):
    expected = log_gaussian(SHIFT, np.sqrt(SCALES**2 + STD**2))
    np.testing.assert_allclose(elbo(POSTERIOR_STD), expected, atol=2e-4)
    log_p = log_gaussian(*FIRST)
    gap = geometry.posterior_gap(log_p, log_q, elbo(POSTERIOR_STD), GRID.cell)
    assert gap == pytest.approx(0.0, abs=1e-4)


def test_joint_divergence_and_posterior_gap_with_another_posterior(log_q):
    """π(z|x) of the right mean and twice the deviation: its KL to the posterior is known."""
    log_p, bound = log_gaussian(*FIRST), elbo(2 * POSTERIOR_STD)
    expected_gap = gaussian_kl([0, 0], 2 * POSTERIOR_STD, [0, 0], POSTERIOR_STD)
    gap = geometry.posterior_gap(log_p, log_q, bound, GRID.cell)
    assert gap == pytest.approx(expected_gap, rel=1e-3)
    joint = geometry.joint_kl(log_p, bound, GRID.cell)
    # log p(x) π(z|x) - log q(z) q(x|z), by the Gaussians in closed form.
    outer = gaussian_kl(*FIRST, SHIFT, np.sqrt(SCALES**2 + STD**2))
    assert joint == pytest.approx(outer + expected_gap, rel=1e-3)
    assert joint == pytest.approx(geometry.kl(log_p, log_q, GRID.cell) + gap, rel=1e-6)


def test_elbo_of_a_curved_decoder():
    """g(z) = (z1², z1 z2): E|x - g|² is a polynomial of the moments of z."""
    decode = lambda z: jnp.stack([z[:, 0] ** 2, z[:, 0] * z[:, 1]], axis=1)
    mean, std = np.array([0.5, -0.3]), np.array([0.6, 0.8])
    encode = lambda x: (jnp.zeros_like(x) + row(mean), jnp.zeros_like(x) + row(np.log(std)))
    point = np.array([[0.7, 0.2]])
    found = geometry.elbo(decode, encode, 0.5, row(point))
    second = mean**2 + std**2
    fourth = mean**4 + 6 * mean**2 * std**2 + 3 * std**4
    distortion = (
        0.7**2
        - 2 * 0.7 * second[0]
        + fourth[0]
        + 0.2**2
        - 2 * 0.2 * mean[0] * mean[1]
        + second[0] * second[1]
    )
    rate = gaussian_kl(mean, std, [0, 0], [1, 1])
    expected = -distortion / (2 * 0.5**2) - np.log(2 * np.pi * 0.5**2) - rate
    assert found[0] == pytest.approx(expected, abs=1e-4)
