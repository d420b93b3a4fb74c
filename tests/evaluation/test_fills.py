"""Recoveries without a network, on images whose holes can be told."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.images import smooth_images
from sklearn.linear_model import Ridge

from vaebm_jax.config import ConditionConfig, DataConfig
from vaebm_jax.data.batch import as_pixels
from vaebm_jax.data.conditions import fill_of, make_condition, observed_of
from vaebm_jax.data.loading import first_images
from vaebm_jax.evaluation.fills import EdgeRidge, fills, resize, shrink
from vaebm_jax.evaluation.metrics import psnr

KEY = jax.random.key(0)
HOLE = ConditionConfig('center_hole', jitter=0.3)


def test_fills_are_what_they_are_called():
    images = smooth_images(4)
    condition = make_condition(KEY, jnp.asarray(images), ConditionConfig('center_hole'))
    filled = fills(condition, HOLE)
    assert set(filled) == {'fill_grey', 'fill_mean', 'fill_harmonic', 'fill_biharmonic'}
    seen = np.asarray(observed_of(condition))[..., 0]
    for result in filled.values():
        np.testing.assert_allclose(result[seen], images[seen], atol=1e-6)
    assert np.all(filled['fill_grey'][~seen] == 0.0)
    np.testing.assert_allclose(filled['fill_mean'][1, 16, 16], images[1][seen[1]].mean(0), 1e-5)
    np.testing.assert_allclose(filled['fill_harmonic'], fill_of(condition), atol=1e-3)
    # What is smooth in its slopes follows a smooth image better than what is smooth in its values.
    score = {name: psnr(images, result, ~seen).mean() for name, result in filled.items()}
    assert score['fill_biharmonic'] > score['fill_harmonic'] > score['fill_mean']


def test_an_image_without_seen_pixels_has_its_hint_alone():
    condition = make_condition(KEY, smooth_images(2), ConditionConfig('gray'))
    assert list(fills(condition, ConditionConfig('gray'))) == ['fill_hint']


def test_the_ridge_finds_what_the_surroundings_tell():
    """Holes whose colour is that of the image's corner, which no interpolation knows."""
    rng = np.random.default_rng(0)
    images = np.zeros((300, 32, 32, 3), np.float32)
    color = rng.uniform(-0.5, 0.5, (300, 1, 1, 3))
    images[:, 10:22, 10:22] = color
    images[:, :4] = color
    images += rng.normal(scale=0.01, size=images.shape)
    train, test = images[:200], images[200:]
    condition = make_condition(KEY, test, ConditionConfig('center_hole', hole_size=0.5))
    filled = fills(condition, ConditionConfig('center_hole'), train)
    region = ~np.asarray(observed_of(condition))[..., 0]
    score = {name: psnr(test, result, region).mean() for name, result in filled.items()}
    assert score['fill_ridge'] > score['fill_harmonic'] + 10.0


def test_the_ridge_in_parts_is_scikit_learns_of_all():
    """Of images and their mirror images, with a free intercept."""
    train, test = smooth_images(70, 48), smooth_images(10, 48, seed=1)
    train = np.clip(train + np.float32(0.3), -1.0, 1.0)
    in_parts = EdgeRidge((train[first : first + 32] for first in (0, 32, 64)), HOLE)
    whole = np.concatenate([train, train[:, :, ::-1]])
    hint, _ = in_parts.hint(whole)
    flat = lambda images: shrink(images).reshape(len(images), -1)
    ridge = Ridge(alpha=1000.0).fit(flat(hint), flat(whole - hint))
    hint, is_observed = in_parts.hint(test)
    missing = resize(ridge.predict(flat(hint)).reshape(-1, 32, 32, 3), 48)
    expected = np.where(is_observed, hint, hint + missing).clip(-1.0, 1.0)
    np.testing.assert_allclose(in_parts(test), expected, atol=1e-4)
    np.testing.assert_allclose(EdgeRidge(train, HOLE)(test), expected, atol=1e-4)
    assert np.abs(expected - hint).max() > 0.01


def test_profiles_go_on_behind_the_hole():
    """Stripes, which a harmonic fill does not continue."""
    rows = np.where(np.arange(64) // 2 % 2, 0.2, -0.2).astype(np.float32)
    images = np.broadcast_to(rows[None, :, None, None], (2, 64, 64, 3))
    errors = []
    for profiles in (0.0, 0.75):
        config = ConditionConfig('random_hole', edge_profiles=profiles)
        condition = make_condition(KEY, jnp.asarray(images), config)
        errors.append(
            np.abs(fill_of(condition) - images)[~np.asarray(observed_of(condition))[..., 0]]
        )
    assert errors[1].mean() < 0.5 * errors[0].mean()


def test_resizing_keeps_means():
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    expected = images.reshape(2, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(shrink(images), expected, atol=1e-5)


@pytest.mark.skipif(not os.environ.get('FACADES_DIR'), reason='FACADES_DIR does not name facades')
def test_the_harmonic_fill_of_facades_is_as_good_as_measured_elsewhere():
    """15.78 dB in the hole of 128 pixels, 21.80 dB whole, over the 106 test images."""
    config = DataConfig('facades', image_size=256, num_channels=3)
    images = first_images(config, 'test', None)
    assert images.shape == (106, 256, 256, 3)
    truth = as_pixels(images)
    condition = jax.jit(make_condition, static_argnums=2)(
        KEY, truth, ConditionConfig('center_hole')
    )
    filled = np.round((np.asarray(fill_of(condition)) + 1.0) * 127.5) / 127.5 - 1.0
    hole = ~np.asarray(observed_of(condition))[..., 0]
    np.testing.assert_allclose(psnr(truth, filled, hole).mean(), 15.78, atol=0.01)
    np.testing.assert_allclose(psnr(truth, filled).mean(), 21.80, atol=0.01)
