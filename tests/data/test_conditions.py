"""Observed pixels, and the harmonic fill of the rest compared with linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax.config import ConditionConfig, Config
from vaebm_jax.data import conditions
from vaebm_jax.data.conditions import CONDITIONS, fill_of, idle_settings, keep_observed, observed_of
from vaebm_jax.data.harmonic_fill import fill_rectangles, harmonic_fill

KEY = jax.random.key(0)
HOLES = ('center_hole', 'random_hole', 'free_form', 'lower_half')
KINDS = (*HOLES, 'gray', 'low_resolution')
make_condition = jax.jit(conditions.make_condition, static_argnums=2)


def images(num_images=6, size=16, channels=3):
    rng = np.random.default_rng(0)
    shape = (num_images, size, size, channels)
    return jnp.asarray(rng.uniform(-1.0, 1.0, shape), jnp.float32)


def dense_fill(image, is_observed):
    """Laplace's equation pixel by pixel: a hidden pixel times its neighbours equals their sum."""
    height, width = is_observed.shape
    matrix, right = np.eye(height * width), np.array(image, np.float64).reshape(height * width, -1)
    for row, column in zip(*np.nonzero(~is_observed), strict=True):
        pixel = row * width + column
        matrix[pixel], right[pixel] = 0.0, 0.0
        for i, j in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= i < height and 0 <= j < width:
                matrix[pixel, pixel] += 1.0
                matrix[pixel, i * width + j] -= 1.0
    return np.linalg.solve(matrix, right).reshape(image.shape)


def test_harmonic_fill_of_any_region_against_a_dense_solve():
    is_observed = np.random.default_rng(1).random((6, 16, 16)) > 0.6
    is_observed[:, 2:11, 5:] = False  # A region at the image's border, too.
    filled = jax.jit(harmonic_fill)(images(), is_observed)
    for image, mask, fill in zip(images(), is_observed, filled, strict=True):
        np.testing.assert_allclose(fill, dense_fill(image, mask), atol=1e-4)


@pytest.mark.parametrize('kind', ['center_hole', 'random_hole', 'lower_half'])
def test_rectangles_against_a_dense_solve(kind):
    condition = make_condition(KEY, images(), ConditionConfig(kind, hole_size=0.4, jitter=0.2))
    is_observed = np.asarray(observed_of(condition))[..., 0]
    for image, mask, hint in zip(images(), is_observed, fill_of(condition), strict=True):
        np.testing.assert_allclose(hint, dense_fill(image, mask), atol=1e-5)


def test_a_plane_is_filled_exactly():
    rows, columns = jnp.meshgrid(jnp.arange(16.0), jnp.arange(16.0), indexing='ij')
    plane = (0.05 * rows - 0.03 * columns)[None, :, :, None]
    filled = fill_rectangles(plane, jnp.array([[4, 6]]), (8, 5))
    np.testing.assert_allclose(filled, plane, atol=1e-5)


@pytest.mark.parametrize('kind', HOLES)
@pytest.mark.parametrize('side', [0.25, 0.5])
def test_masks_hide_the_share_that_they_claim(kind, side):
    config = ConditionConfig(kind, hole_size=side, jitter=0.1)
    condition = make_condition(KEY, images(8, 32), config)
    hidden = 1.0 - np.asarray(observed_of(condition)).mean(axis=(1, 2, 3))
    np.testing.assert_array_equal(hidden, 0.5 if kind == 'lower_half' else side**2)


@pytest.mark.parametrize('kind', HOLES)
def test_what_is_hidden_does_not_leak(kind):
    """The condition of an image with other pixels where they are hidden is the same."""
    config = ConditionConfig(kind, edge_profiles=0.5)
    condition = make_condition(KEY, images(), config)
    other = keep_observed(images()[::-1], condition)
    np.testing.assert_array_equal(make_condition(KEY, other, config), condition)
    seen = np.broadcast_to(observed_of(condition), other.shape)
    np.testing.assert_array_equal(fill_of(condition)[seen], images()[seen])


@pytest.mark.parametrize('kind', KINDS)
def test_draws_follow_the_global_index(kind):
    config = ConditionConfig(kind, jitter=0.2)
    whole = make_condition(KEY, images(), config)
    assert whole.shape == (6, 16, 16, 4)
    np.testing.assert_allclose(make_condition(KEY, images()[4:], config, 4), whole[4:], atol=1e-6)


@pytest.mark.parametrize('kind', ['random_hole', 'free_form'])
def test_every_image_has_its_own_hole(kind):
    seen = np.asarray(
        observed_of(make_condition(KEY, images(), ConditionConfig(kind, hole_size=0.3)))
    )
    assert len(np.unique(seen.reshape(6, -1), axis=0)) > 3


def test_a_hole_strays_as_far_as_it_may():
    config = ConditionConfig('center_hole', jitter=0.125)
    seen = observed_of(make_condition(KEY, jnp.zeros((500, 16, 16, 1)), config))
    tops = np.argmin(np.asarray(seen).all(axis=(2, 3)), axis=1)
    assert set(tops) == {2, 3, 4, 5, 6}


def test_gray_and_low_resolution_keep_what_they_say():
    gray = fill_of(make_condition(KEY, images(), ConditionConfig('gray')))
    expected = images() @ np.float32([0.299, 0.587, 0.114])
    np.testing.assert_allclose(gray, np.repeat(expected[..., None], 3, -1), atol=1e-6)

    # What is left of an image are the means of its blocks.
    config = ConditionConfig('low_resolution')
    low, again = (
        fill_of(make_condition(KEY, x, config))
        for x in (images(), jnp.repeat(jnp.repeat(means_of(images(), 4), 4, 1), 4, 2))
    )
    np.testing.assert_allclose(low, again, atol=1e-5)
    flat = fill_of(make_condition(KEY, jnp.full((2, 8, 8, 3), 0.25), config))
    np.testing.assert_allclose(flat, 0.25, atol=1e-6)
    for kind in ('gray', 'low_resolution'):
        assert not np.any(observed_of(make_condition(KEY, images(), ConditionConfig(kind))))


def means_of(x, factor):
    size = x.shape[1] // factor
    return x.reshape(len(x), size, factor, size, factor, -1).mean(axis=(2, 4))


def test_without_a_condition_there_is_none():
    assert make_condition(KEY, images(), ConditionConfig()) is None
    np.testing.assert_array_equal(keep_observed(images(), None), images())


@pytest.mark.parametrize('kind', CONDITIONS)
def test_a_setting_is_idle_where_it_changes_nothing(kind):
    """No condition of images, none of a user's own mask, and no mask of the chain's updates."""
    row, is_observed = CONDITIONS[kind], np.ones((8, 8), bool)
    is_observed[3:5, 1:6] = False
    others = {'hole_size': 0.3, 'jitter': 0.2, 'edge_profiles': 0.5, 'factor': 2, 'updates': 'all'}

    def made(condition):
        made = make_condition(KEY, images(2, 8), condition)
        masked = row.of_mask and row.of_mask(images(1, 8)[0], is_observed, condition)
        hides = made is not None and condition.updates == 'hidden' and np.any(observed_of(made))
        return [np.asarray(leaf) for leaf in jax.tree.leaves((made, masked, bool(hides)))]

    usual = made(ConditionConfig(kind))
    assert idle_settings(Config(condition=ConditionConfig(kind))) == []
    for name, value in others.items():
        condition = ConditionConfig(kind, **{name: value})
        is_idle = all(map(np.array_equal, made(condition), usual))
        assert idle_settings(Config(condition=condition)) == [f'condition.{name}'] * is_idle
