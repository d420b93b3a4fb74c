"""The hand-written gradients against those of plain `lax.conv_general_dilated`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vaebm_jax import langevin_sample
from vaebm_jax.models.convolution import FORMS, conv, depth_to_space
from vaebm_jax.models.networks import EnergyNet


def plain_conv(x, kernel, strides=(1, 1), padding='SAME'):
    order = ('NHWC', 'HWIO', 'NHWC')
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=order)


def example(image=(7, 6), kernel=(3, 3), dtype=np.float32, channels=(2, 3)):
    """Two images of two channels and a kernel to three."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *image, channels[0])).astype(dtype)
    return x, rng.normal(size=(*kernel, *channels)).astype(dtype)


def value_and_gradients(convolution, x, kernel, strides, padding):
    """The result, and both gradients of a function in which every output counts differently."""

    @jax.jit
    def apply(x, kernel):
        y, pull_back = jax.vjp(
            lambda x, kernel: convolution(x, kernel, strides, padding), x, kernel
        )
        return y, *pull_back(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    return apply(x, kernel)


def assert_agree(x, kernel, strides, padding, rtol, convolution=conv):
    results = value_and_gradients(convolution, x, kernel, strides, padding)
    expected = value_and_gradients(plain_conv, x, kernel, strides, padding)
    for result, right in zip(results, expected, strict=True):
        assert result.dtype == right.dtype == x.dtype
        np.testing.assert_allclose(result, right, rtol=rtol, atol=rtol * np.max(np.abs(right)))


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('kernel', [(1, 5), (4, 2), (3, 3)], ids=str)
def test_agrees_with_plain_lax_in_float64(kernel, stride, padding):
    with jax.enable_x64(True):
        x, kernel = example((7, 6), kernel, np.float64)
        assert_agree(x, kernel, (stride, stride), padding, rtol=1e-12)


@pytest.mark.parametrize(
    'image, kernel, strides, padding',
    [
        ((8, 8), (4, 4), (2, 2), 'SAME'),
        ((9, 9), (2, 2), (2, 2), 'SAME'),
        ((28, 28), (5, 5), (2, 2), 'SAME'),
        ((5, 11), (1, 1), (1, 1), 'VALID'),
        ((9, 6), (5, 1), (3, 2), 'VALID'),
        ((8, 7), (3, 2), (2, 1), ((4, 0), (1, 5))),  # wider than the kernel
        ((7, 6), (3, 3), (3, 2), ((2, 1), (0, 3))),
        ((7, 6), (1, 4), (1, 1), ((0, 2), (3, 1))),
        ((7, 7), (3, 3), (2, 2), 'SAME_LOWER'),
        ((4, 4), (4, 4), (1, 1), 'VALID'),  # the whole image at once
    ],
)
def test_images_kernels_and_strides_of_any_shape(image, kernel, strides, padding):
    assert_agree(*example(image, kernel), strides, padding, rtol=1e-5)


@pytest.mark.parametrize('channels', [(2, 3), (16, 32)], ids=str)
def test_bfloat16_has_sums_in_float32(channels):
    """Its gradients have the operands' own type, by either path of a CPU."""
    operands = example((8, 8), (4, 4), channels=channels)
    coarse = [jnp.asarray(operand, jnp.bfloat16) for operand in operands]
    results = value_and_gradients(conv, *coarse, (2, 2), 'SAME')
    assert [result.dtype for result in results] == [jnp.float32, jnp.bfloat16, jnp.bfloat16]
    fine = [np.asarray(operand, np.float32) for operand in coarse]
    expected = value_and_gradients(plain_conv, *fine, (2, 2), 'SAME')
    for result, right in zip(results, expected, strict=True):
        error = np.max(np.abs(np.asarray(result, np.float32) - right)) / np.max(np.abs(right))
        assert error < 0.01


@pytest.mark.parametrize('padding', ['SAME', 'VALID', ((4, 0), (1, 5))], ids=str)
@pytest.mark.parametrize('kernel', [(3, 3), (4, 2)], ids=str)
def test_to_fewer_channels_in_float64(kernel, padding):
    """There it is the cotangent that the kernel's gradient shifts."""
    with jax.enable_x64(True):
        x, kernel = example((7, 6), kernel, np.float64, channels=(5, 2))
        assert_agree(x, kernel, (1, 1), padding, rtol=1e-12)


@pytest.mark.parametrize('stride', [1, 2])
def test_gradients_inside_loops(stride):
    """Descent on |conv(x, k)|² by either gradient: by scan, by fori_loop and by plain lax."""
    x, kernel = example(kernel=(4, 4))

    def descent(convolution, loop):
        energy = lambda x, kernel: jnp.mean(convolution(x, kernel, (stride, stride), 'SAME') ** 2)

        def step(carry):
            gradients = jax.grad(energy, argnums=(0, 1))(*carry)
            return tuple(value - 0.1 * slope for value, slope in zip(carry, gradients, strict=True))

        return jax.jit(lambda *carry: loop(step, carry))(x, kernel)

    by_scan = lambda step, carry: lax.scan(lambda c, _: (step(c), None), carry, length=3)[0]
    by_fori_loop = lambda step, carry: lax.fori_loop(0, 3, lambda _, c: step(c), carry)
    expected = descent(plain_conv, by_scan)
    assert np.max(np.abs(expected[0] - x)) > 0.01
    for loop in (by_scan, by_fori_loop):
        for result, right in zip(descent(conv, loop), expected, strict=True):
            np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('strides, padding', [((1, 1), 'SAME'), ((2, 3), 'VALID')])
@pytest.mark.parametrize('wrt', [0, 1], ids=['image', 'kernel'])
def test_second_derivatives(wrt, strides, padding):
    """The gradient, by the kernel, of the squared norm of either gradient."""

    def penalty(convolution):
        loss = lambda x, kernel: jnp.sum(jnp.sin(convolution(x, kernel, strides, padding)))
        norm = lambda x, kernel: jnp.sum(jax.grad(loss, argnums=wrt)(x, kernel) ** 2)
        return jax.jit(jax.grad(norm, argnums=(0, 1)))

    args = example(kernel=(3, 4))
    for result, right in zip(penalty(conv)(*args), penalty(plain_conv)(*args), strict=True):
        assert np.max(np.abs(right)) > 0.1
        np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-4 * np.max(np.abs(right)))


def test_gradients_an_example_under_vmap():
    x, kernel = example()
    gradient = lambda convolution: jax.grad(
        lambda kernel, image: jnp.sum(convolution(image[None], kernel, (2, 2), 'SAME') ** 2)
    )
    by_image = jax.jit(jax.vmap(gradient(conv), (None, 0)))(kernel, x)
    for image, result in zip(x, by_image, strict=True):
        np.testing.assert_allclose(result, gradient(plain_conv)(kernel, image), rtol=1e-4)


@pytest.mark.parametrize(
    'unused, named',
    [
        (dict(lhs_dilation=(2, 2)), 'lhs_dilation'),
        (dict(rhs_dilation=(1, 2)), 'rhs_dilation'),
        (dict(feature_group_count=2), 'groups'),
        (dict(precision='highest'), 'precision'),
        (dict(padding=((-1, 0), (0, 0))), 'negative padding'),
    ],
)
def test_what_it_cannot_do_is_refused(unused, named):
    with pytest.raises(ValueError, match=named):
        conv(*example(), **unused)
    with pytest.raises(TypeError, match='window_strides'):
        conv(*example(), window_strides=(2, 2))


def test_defaults_of_flax_are_taken():
    x, kernel = example()
    unused = dict(lhs_dilation=(1, 1), rhs_dilation=None, feature_group_count=1, precision=None)
    np.testing.assert_allclose(conv(x, kernel, **unused), plain_conv(x, kernel), rtol=1e-5)


def test_depth_to_space():
    """Channel block (row, column) of a pixel becomes that pixel of its 2x2 square."""
    x = np.arange(2 * 3 * 2 * 8).reshape(2, 3, 2, 8)
    expected = np.zeros((2, 6, 4, 2), int)
    for row, column in np.ndindex(2, 2):
        block = 2 * (2 * row + column)
        expected[:, row::2, column::2] = x[..., block : block + 2]
    np.testing.assert_array_equal(depth_to_space(jnp.asarray(x)), expected)


def kernel_orders(lowered):
    """How each convolution in StableHLO labels its kernel: `['0, 1, i, o', ...]`."""
    return re.findall(r'dim_numbers = \[[^]]*\]x\[([^]]*)\]->', lowered.as_text())


def test_the_chain_on_a_cpu_has_kernels_in_hwio_only():
    """Any other order takes a path many times slower inside a loop there."""
    net = EnergyNet((('conv', 4, 3, 1), ('conv', 8, 4, 2), ('conv', 8, 3, 2)))
    x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), x)

    def chain(params, x):
        energy_fn = lambda x: -net.apply(params, x)
        return langevin_sample(jax.random.key(0), energy_fn, x, num_steps=3, step_size=0.1)

    lowered = jax.jit(chain).trace(params, x).lower(lowering_platforms=('cpu',))
    # Three convolutions forward, and three back to the image.
    assert kernel_orders(lowered) == ['0, 1, i, o'] * 6


def test_plain_lax_has_other_orders():
    """Or the test above could not fail."""
    gradient = jax.grad(lambda x, kernel: jnp.sum(plain_conv(x, kernel) ** 2))
    assert set(kernel_orders(jax.jit(gradient).lower(*example()))) != {'0, 1, i, o'}


@pytest.mark.parametrize('platform', ['cpu', 'tpu', 'cuda'])
def test_the_kernel_gradient_is_one_convolution_but_on_a_cpu(platform):
    x, kernel = example()
    loss = lambda kernel, x: jnp.sum(jnp.cos(conv(x, kernel, (2, 2))))
    lowered = jax.jit(jax.grad(loss)).trace(kernel, x).lower(lowering_platforms=(platform,))
    num_products = lowered.as_text().count('stablehlo.dot_general')
    orders = kernel_orders(lowered)
    if platform == 'cpu':
        assert num_products == 9 and set(orders) == {'0, 1, i, o'}
    else:
        assert num_products == 0 and len(set(orders) - {'0, 1, i, o'}) == 1


@pytest.mark.parametrize(
    'image, kernel, channels, strides, padding',
    [
        ((8, 8), (3, 3), (3, 16), (1, 1), 'SAME'),
        ((7, 6), (4, 2), (3, 16), (2, 1), 'SAME'),
        ((9, 7), (5, 5), (1, 8), (2, 2), ((0, 3), (1, 2))),
        ((8, 8), (3, 3), (16, 3), (1, 1), 'SAME'),
        ((7, 6), (4, 3), (8, 3), (2, 3), ((4, 0), (1, 5))),
        ((8, 8), (4, 4), (8, 9), (2, 2), 'SAME'),
        ((7, 9), (4, 4), (8, 9), (2, 2), 'SAME'),
        ((9, 8), (2, 4), (8, 9), (2, 2), 'VALID'),  # the last row is not read
        ((9, 6), (3, 2), (9, 8), (3, 1), ((2, 1), (0, 3))),
        ((7, 6), (3, 3), (8, 9), (2, 2), 'SAME'),
    ],
    ids=str,
)
def test_patches_and_blocks_are_the_same_convolution(image, kernel, channels, strides, padding):
    x, kernel = example(image, kernel, channels=channels)
    assert_agree(x, kernel, strides, padding, rtol=1e-5, convolution=FORMS['patches'])
    results = value_and_gradients(
        FORMS['patches'], *(jnp.asarray(operand, 'bfloat16') for operand in (x, kernel)),
        strides, padding,
    )  # fmt: skip
    assert [result.dtype for result in results] == [jnp.float32, jnp.bfloat16, jnp.bfloat16]
    for result, right in zip(
        results, value_and_gradients(plain_conv, x, kernel, strides, padding), strict=True
    ):
        assert np.max(np.abs(np.asarray(result, np.float32) - right)) < 0.03 * np.max(np.abs(right))


@pytest.mark.parametrize('channels, kernel, num_convolutions, num_products', [
    ((3, 16), (3, 3), 0, 3), ((16, 3), (3, 3), 0, 3), ((8, 8), (4, 4), 3, 0),
])  # fmt: skip
def test_patches_leave_no_convolution_of_few_channels_and_none_with_a_stride(
    channels, kernel, num_convolutions, num_products
):
    x, kernel = example((8, 8), kernel, channels=channels)
    stride = 2 if num_convolutions else 1
    loss = lambda x, kernel: jnp.sum(jnp.cos(FORMS['patches'](x, kernel, (stride, stride))))
    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, kernel).as_text()
    assert text.count('stablehlo.convolution') == num_convolutions
    assert text.count('stablehlo.dot_general') == num_products
    assert not re.search(r'(stride|lhs_dilate|rhs_dilate) = \[2', text)
