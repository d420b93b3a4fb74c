"""The plane's data sets: draws and densities are of the same law."""

import numpy as np
import pytest

from vaebm_jax.config import DataConfig
from vaebm_jax.data.batch import as_pixels, make_batch
from vaebm_jax.data.densities import DENSITIES
from vaebm_jax.data.loading import load_images
from vaebm_jax.evaluation.geometry import make_grid

GRID = make_grid()


@pytest.mark.parametrize('name', DENSITIES)
def test_a_density_has_the_mass_and_moments_of_its_draws(name):
    law = DENSITIES[name]
    density = np.exp(law.log_density(GRID.points)) * GRID.cell
    assert density.sum() == pytest.approx(1.0, abs=1e-6)
    points = law.draw(200_000, seed=5)
    assert points.shape == (200_000, 2) and points.dtype == np.float32
    for power in (1, 2, 3, 4):  # A moment's own error is its deviation / sqrt(200,000).
        expected = density @ GRID.points**power
        error = np.sqrt(density @ GRID.points ** (2 * power)) / np.sqrt(200_000)
        # The checkerboard's cells add h² / 12 to its squares.
        np.testing.assert_array_less(np.abs((points**power).mean(0) - expected), 5 * error + 0.005)
    entropy = -density @ np.nan_to_num(law.log_density(GRID.points), neginf=0.0)
    assert -law.log_density(points).mean() == pytest.approx(entropy, abs=0.01)


@pytest.mark.parametrize('name', DENSITIES)
def test_every_mode_has_its_share(name):
    law = DENSITIES[name]
    modes = law.mode_of(law.draw(200_000, seed=6))
    assert modes.min() == 0 and modes.max() == law.num_modes - 1
    shares = np.bincount(modes) / len(modes)
    np.testing.assert_allclose(shares, 1 / law.num_modes, rtol=0.02)


def test_eight_gaussians_are_where_they_should_be():
    law = DENSITIES['eight_gaussians']
    centres = law.centres
    np.testing.assert_allclose(centres[0], [2.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 2.0)
    np.testing.assert_array_equal(law.mode_of(centres), np.arange(8))
    # At a centre the others are 1.53 and more away: the density is 1/8 of one Gaussian's.
    at = np.exp(law.log_density(centres[:1]))
    neighbours = 2 * np.exp(-((2 * 2.0 * np.sin(np.pi / 8)) ** 2) / (2 * 0.3**2))
    assert at == pytest.approx((1 + neighbours) / (8 * 2 * np.pi * 0.3**2), rel=1e-4)


def test_off_the_board_there_is_nothing():
    points = np.array([[-1.5, -1.5], [-0.5, -1.5], [1.5, 1.5], [2.5, 1.5], [-1.5, -2.5]])
    dark = np.array([True, False, True, False, False])
    np.testing.assert_array_equal(np.isfinite(DENSITIES['checkerboard'].log_density(points)), dark)
    np.testing.assert_array_equal(DENSITIES['checkerboard'].mode_of(points) >= 0, dark)


def test_points_are_a_data_set_in_their_own_units():
    config = DataConfig(name='ring', image_size=1, num_channels=2)
    train, again, test = (load_images(config, split) for split in ('train', 'train', 'test'))
    assert train.shape == (1_000_000, 1, 1, 2) and train.dtype == np.float32
    np.testing.assert_array_equal(train, again)
    assert not np.any(np.isin(test[:1000, 0, 0, 0], train[:1000, 0, 0, 0]))
    batch = make_batch(None, train[:8], config)
    np.testing.assert_array_equal(batch.image, train[:8])
    np.testing.assert_array_equal(as_pixels(train[:8]), train[:8])
