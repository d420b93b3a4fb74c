"""Scores whose values are known."""

import numpy as np
import pytest
import scipy.linalg
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vaebm_jax.evaluation.metrics import Moments, frechet_distance, inception_score, psnr, ssim


def moments(features, parts=1):
    result = Moments.empty(features.shape[1])
    for part in np.array_split(features, parts):
        result.add(part)
    return result


def exact(mean, covariance, count=10**9):
    """Moments of which mean and covariance are these."""
    mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
    products = covariance * (count - 1) + count * np.outer(mean, mean)
    return Moments(count, count * mean, products)


def random_gaussian(seed, width=6):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(width, width))
    return rng.normal(size=width), root @ root.T


def test_moments_are_numpys_in_any_parts():
    features = np.random.default_rng(0).normal(3.0, size=(50, 4))
    for parts in (1, 7):
        result = moments(features, parts)
        np.testing.assert_allclose(result.mean, features.mean(0), rtol=1e-12)
        np.testing.assert_allclose(result.covariance, np.cov(features.T), rtol=1e-9)


def test_moments_hold_float32_features_far_from_zero():
    """A float32 sum of so many squares would have lost the variance."""
    features = (1000.0 + np.random.default_rng(0).normal(size=(100_000, 1))).astype(np.float32)
    np.testing.assert_allclose(moments(features, 20).covariance, [[1.0]], rtol=0.02)


def test_frechet_distance_of_a_set_with_itself():
    same = moments(np.random.default_rng(0).normal(size=(500, 8)))
    assert frechet_distance(same, same) < 1e-9


def test_frechet_distance_of_commuting_covariances():
    """|dm|² + Σ (√l₁ - √l₂)²."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    first, second = np.array([1.0, 4.0, 9.0]), np.array([4.0, 4.0, 0.25])
    turned = lambda values: rotation @ np.diag(values) @ rotation.T
    distance = frechet_distance(
        exact([1.0, 0.0, 2.0], turned(first)), exact([0.0, 0.0, 0.0], turned(second))
    )
    expected = 5.0 + np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    np.testing.assert_allclose(distance, expected, rtol=1e-5)


@pytest.mark.parametrize('seed', range(3))
def test_frechet_distance_by_the_root_of_the_product(seed):
    """The other form: SciPy's matrix root of C₁ C₂."""
    (mean, covariance), (other_mean, other_covariance) = (
        random_gaussian(seed),
        random_gaussian(seed + 100),
    )
    root = scipy.linalg.sqrtm(covariance @ other_covariance).real
    expected = np.sum((mean - other_mean) ** 2)
    expected += np.trace(covariance + other_covariance - 2.0 * root)
    distance = frechet_distance(exact(mean, covariance), exact(other_mean, other_covariance))
    np.testing.assert_allclose(distance, expected, rtol=1e-6)


def test_frechet_distance_of_fewer_images_than_features():
    """Singular covariances: finite, symmetric, and 0 with themselves."""
    rng = np.random.default_rng(0)
    first, second = moments(rng.normal(size=(5, 20))), moments(rng.normal(size=(7, 20)))
    assert frechet_distance(first, first) < 1e-6
    np.testing.assert_allclose(
        frechet_distance(first, second), frechet_distance(second, first), rtol=1e-6
    )


def test_inception_score_of_one_hot_predictions_is_the_number_of_classes():
    logits = 1000.0 * np.eye(5)[np.arange(100) % 5]
    np.testing.assert_allclose(inception_score(logits, 10), (5.0, 0.0), atol=1e-9)


def test_inception_score_of_equal_predictions_is_one():
    logits = np.tile(np.random.default_rng(0).normal(size=(1, 7)), (40, 1))
    np.testing.assert_allclose(inception_score(logits, 4), (1.0, 0.0), atol=1e-12)


def test_inception_score_by_hand():
    """Two images, two classes, one split: KL of (0.9, 0.1) and (0.5, 0.5) to their mean."""
    p = np.array([[0.9, 0.1], [0.5, 0.5]])
    mean = p.mean(axis=0, keepdims=True)
    expected = np.exp(np.mean(np.sum(p * np.log(p / mean), axis=1)))
    np.testing.assert_allclose(inception_score(np.log(p), 1)[0], expected, rtol=1e-12)


def pair(channels):
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1.0, 1.0, size=(2, 24, 20, channels))
    return truth, np.clip(truth + rng.normal(0.0, 0.2, size=truth.shape), -1.0, 1.0)


def test_psnr_of_a_known_error():
    """10 log10(4 / MSE); the region holds the error, the image has it on a quarter."""
    truth = np.zeros((1, 8, 8, 1))
    region = np.zeros((8, 8), bool)
    region[2:6, 2:6] = True
    images = truth + 0.2 * region[None, :, :, None]
    np.testing.assert_allclose(psnr(truth, images, region), [20.0], atol=1e-9)
    np.testing.assert_allclose(psnr(truth, images), [20.0 + 10.0 * np.log10(4.0)], atol=1e-9)


def test_pixels_outside_count_as_clipped():
    truth = np.ones((1, 8, 8, 1))
    assert psnr(truth, truth + 3.0) > 1000.0


@pytest.mark.parametrize('channels', [1, 3])
def test_psnr_and_ssim_are_scikit_images(channels):
    truth, images = pair(channels)
    for index in range(2):
        np.testing.assert_allclose(
            psnr(truth, images)[index],
            peak_signal_noise_ratio(truth[index], images[index], data_range=2.0),
            rtol=1e-9,
        )
        # Luminance in [0, 255], as most people call it: the same number.
        eight_bits = [127.5 * (image[index] + 1.0) for image in (truth, images)]
        expected = structural_similarity(
            *eight_bits,
            data_range=255.0,
            channel_axis=-1,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        np.testing.assert_allclose(ssim(truth, images)[index], expected, rtol=1e-6)


def test_ssim_sees_only_the_region():
    truth, _ = pair(3)
    region = np.zeros((24, 20), bool)
    region[:, :4] = True
    images = truth.copy()
    images[:, :, 12:] = 0.0
    np.testing.assert_allclose(ssim(truth, images, region), 1.0, atol=1e-9)
    assert np.all(ssim(truth, images) < 0.9)
    assert np.all(ssim(truth, images, ~region) < np.array(ssim(truth, images)))
