"""The filtering form against plain `lax.conv_general_dilated` and its own transposes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vaebm_jax.models import winograd
from vaebm_jax.models.convolution import conv

# Image, kernel, strides: two and three taps an axis, odd sizes, outputs that fill no tile.
SHAPES = [
    ((8, 8), (4, 4), (2, 2)),
    ((7, 10), (4, 4), (2, 2)),
    ((8, 6), (3, 3), (1, 1)),
    ((7, 5), (3, 3), (1, 1)),
    ((9, 9), (2, 2), (1, 1)),
    ((11, 9), (5, 5), (2, 2)),
    ((9, 8), (3, 3), (2, 2)),
    ((9, 14), (2, 5), (1, 3)),
    ((13, 12), (8, 7), (3, 3)),
    ((4, 4), (3, 2), (1, 1)),
]
CASES = [(*shape, 'SAME') for shape in SHAPES] + [
    (*shape, padding) for shape in SHAPES[1:8:3] for padding in ('VALID', ((0, 2), (3, 1)))
]


def example(image, kernel, strides, padding, dtype, channels=(3, 5)):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *image, channels[0])), dtype)
    kernel = jnp.asarray(rng.normal(size=(*kernel, *channels)), dtype)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(image, kernel.shape[:2], strides, padding)
    padding = tuple(map(tuple, padding))
    exact = lambda value: value.astype(jnp.promote_types(dtype, jnp.float32))
    plain = lambda x, kernel: lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    y, pull_back = jax.vjp(plain, exact(x), exact(kernel))
    cotangent = jnp.asarray(rng.normal(size=y.shape), dtype)
    return x, kernel, cotangent, padding, (y, *pull_back(exact(cotangent)))


@functools.partial(jax.jit, static_argnums=(3, 4))
def all_three(x, kernel, cotangent, strides, padding):
    return (
        winograd.conv(x, kernel, strides, padding),
        winograd.input_grad(cotangent, kernel, x.shape, strides, padding),
        winograd.kernel_grad(x, cotangent, kernel.shape, strides, padding),
    )


def worst(result, right):
    """The largest error, as a share of the largest value."""
    assert result.shape == right.shape
    error = np.max(np.abs(np.asarray(result, right.dtype) - right))
    return error / np.max(np.abs(right))


@pytest.mark.parametrize('image, kernel, strides, padding', CASES, ids=str)
def test_agrees_with_plain_lax_in_float64(image, kernel, strides, padding):
    with jax.enable_x64(True):
        x, kernel, cotangent, padding, expected = example(
            image, kernel, strides, padding, np.float64
        )
        for result, right in zip(
            all_three(x, kernel, cotangent, strides, padding), expected, strict=True
        ):
            assert result.dtype == np.float64
            assert worst(result, right) < 1e-13


@pytest.mark.parametrize('dtype, tolerance', [(jnp.float32, 3e-6), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize('image, kernel, strides', [SHAPES[0], SHAPES[3]], ids=str)
def test_rounds_little(image, kernel, strides, dtype, tolerance):
    """With channels enough to sum over, compiled: not every bfloat16 product runs everywhere."""
    x, kernel, cotangent, padding, expected = example(
        image, kernel, strides, 'SAME', dtype, channels=(48, 32)
    )
    results = all_three(x, kernel, cotangent, strides, padding)
    for result, right in zip(results, expected, strict=True):
        assert worst(result, right) < tolerance


def test_saving():
    same = ((1, 1), (1, 1))
    assert winograd.saving((1, 8, 8, 1), (4, 4, 1, 1), (2, 2), same) == pytest.approx(16 / 9)
    assert winograd.saving((1, 8, 8, 1), (3, 3, 1, 1), (1, 1), same) == pytest.approx(36 / 16)
    # Seven outputs take four tiles of two.
    odd = winograd.saving((1, 7, 7, 1), (3, 3, 1, 1), (1, 1), same)
    assert odd == pytest.approx((7 / 8) ** 2 * 36 / 16)
    # One tap and four have no such form.
    assert winograd.saving((1, 8, 8, 1), (2, 2, 1, 1), (2, 2), same) == 0
    assert winograd.saving((1, 8, 8, 1), (4, 4, 1, 1), (1, 1), same) == 0


@pytest.mark.parametrize('platform', ['cpu', 'tpu', 'cuda'])
@pytest.mark.parametrize('wrt', [0, 1], ids=['image', 'kernel'])
def test_it_is_chosen_on_a_cpu_alone(platform, wrt):
    x, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((4, 4, 16, 16))
    loss = lambda x, kernel: jnp.sum(jnp.cos(conv(x, kernel, (2, 2))))
    gradient = jax.jit(jax.grad(loss, argnums=wrt)).trace(x, kernel)
    text = gradient.lower(lowering_platforms=(platform,)).as_text()
    products, convolutions = (
        text.count(f'stablehlo.{name}') for name in ('dot_general', 'convolution')
    )
    assert (products, convolutions) == ((18, 0) if platform == 'cpu' else (0, 2))


def test_few_channels_keep_the_plain_convolution():
    """Three channels of an image: what the form takes of them costs more than it saves."""
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 64))
    assert jax.jit(conv).lower(x, kernel).as_text().count('stablehlo.convolution') == 1
