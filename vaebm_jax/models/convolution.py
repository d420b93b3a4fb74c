"""2-D convolution whose gradients are written out, each platform in the form it runs fastest.

On a GPU or a TPU, convolution and gradients are XLA's own. On a CPU, the gradients that JAX derives
have kernels laid out in orders other than `HWIO`, and inside a loop XLA runs such a convolution 18
to 50 times slower. So on a CPU the gradient with respect to the input is a convolution of the
cotangent with the flipped kernel, input and output channels swapped; the gradient with respect to
the kernel is one matrix product per tap; and where Winograd's form saves enough products, it
replaces all three.
"""

import functools
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vaebm_jax.models import patches, winograd

_NHWC = ('NHWC', 'HWIO', 'NHWC')


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, kernel, strides, padding):
    geometry = {'strides': strides, 'padding': padding}
    plain = functools.partial(_plain, **geometry)
    fast = plain
    if _is_winograd(x.shape, kernel.shape, strides, padding):
        fast = functools.partial(winograd.conv, **geometry)
    return _by_platform(fast, plain, x, kernel, dtype=np.promote_types(x.dtype, np.float32))


def _conv_forward(x, kernel, strides, padding):
    return _conv(x, kernel, strides, padding), (x, kernel)


def _conv_backward(strides, padding, residuals, cotangent):
    x, kernel = residuals
    cotangent = cotangent.astype(x.dtype)
    geometry = {'strides': strides, 'padding': padding}
    input_grad = functools.partial(_input_grad, shape=x.shape, **geometry)
    kernel_grad = functools.partial(_kernel_grad, kernel=kernel, **geometry)
    fast_input_grad = input_grad
    fast_kernel_grad = functools.partial(
        _kernel_grad_of_taps, kernel_size=kernel.shape[:2], **geometry
    )
    if _is_winograd(x.shape, kernel.shape, strides, padding):
        fast_input_grad = functools.partial(winograd.input_grad, shape=x.shape, **geometry)
        fast_kernel_grad = functools.partial(
            winograd.kernel_grad, kernel_shape=kernel.shape, **geometry
        )
    return (
        _by_platform(fast_input_grad, input_grad, cotangent, kernel, dtype=x.dtype),
        _by_platform(fast_kernel_grad, kernel_grad, x, cotangent, dtype=kernel.dtype),
    )


def _is_winograd(shape, kernel_shape, strides, padding):
    return (
        min(kernel_shape[2:]) >= 16 and winograd.saving(shape, kernel_shape, strides, padding) > 1.5
    )


def _by_platform(fast, plain, *operands, dtype):
    """`fast` on a CPU, elsewhere `plain`; the result as `dtype`.

    A TPU gets bfloat16 operands as float32. At JAX's default precision it multiplies them in
    bfloat16 all the same, and packs nothing between two convolutions: a step takes a tenth less.
    """
    wide = lambda *arrays: plain(*map(winograd.wide, arrays))
    cast = lambda function: lambda *arrays: function(*arrays).astype(dtype)
    return lax.platform_dependent(*operands, cpu=cast(fast), tpu=cast(wide), default=cast(plain))


def _plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC)


def _input_grad(cotangent, kernel, shape, strides, padding):
    grad_padding = []
    for axis in (0, 1):
        size, before = kernel.shape[axis], padding[axis][0]
        spread = (cotangent.shape[axis + 1] - 1) * strides[axis] + 1
        grad_before = size - 1 - before
        grad_after = shape[axis + 1] + size - 1 - spread - grad_before
        grad_padding.append((grad_before, grad_after))
    return lax.conv_general_dilated(
        cotangent,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        (1, 1),
        grad_padding,
        lhs_dilation=strides,
        dimension_numbers=_NHWC,
    )


def _kernel_grad(x, cotangent, kernel, strides, padding):
    plain = functools.partial(_plain, x, strides=strides, padding=padding)
    return jax.linear_transpose(plain, kernel.astype(x.dtype))(cotangent)[0]


def _kernel_grad_of_taps(x, cotangent, kernel_size, strides, padding):
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    if strides == (1, 1) and cotangent.shape[-1] < x.shape[-1]:
        # The same sum, the cotangent shifted in place of x, which has more channels to copy.
        behind = [(0, 0), *((size - 1, size - 1) for size in kernel_size), (0, 0)]
        grad = _products_of_taps(jnp.pad(cotangent, behind), x, kernel_size, strides)
        return jnp.flip(grad, (0, 1)).swapaxes(2, 3)
    return _products_of_taps(x, cotangent, kernel_size, strides)


def _products_of_taps(moving, fixed, kernel_size, strides):
    _, height, width, features = fixed.shape
    fixed = fixed.reshape(-1, features)
    taps = []
    for row, column in np.ndindex(*kernel_size):
        rows = slice(row, row + (height - 1) * strides[0] + 1, strides[0])
        columns = slice(column, column + (width - 1) * strides[1] + 1, strides[1])
        taps.append(moving[:, rows, columns].reshape(-1, moving.shape[-1]).T @ fixed)
    return jnp.stack(taps).reshape(*kernel_size, moving.shape[-1], features)


_conv.defvjp(_conv_forward, _conv_backward)


def conv(
    x: chex.Array,
    kernel: chex.Array,
    strides: Sequence[int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = 'SAME',
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: object = None,
    feature_group_count: int = 1,
    precision: object = None,
    form: Callable[..., chex.Array] = _conv,
) -> chex.Array:
    """Convolves `x` `[B, H, W, I]` with `kernel` `[h, w, I, O]`, as `lax.conv_general_dilated`.

    It fits the `conv_general_dilated` of `flax.linen.Conv`; the keywords are what Flax passes, but
    for `form`: what computes it, given strides and padding as numbers.

    Returns:
      `[B, H', W', O]`, float32 for bfloat16 inputs: the sums are not rounded, so that a bias and an
      activation come before the only rounding, and a bias's gradient is summed in float32.

    Raises:
      ValueError: for dilations, groups, a precision or negative padding.
    """
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    if any(step != 1 for step in dilations) or feature_group_count != 1 or precision is not None:
        raise ValueError(
            'conv takes no dilation, groups or precision, got '
            f'{lhs_dilation=}, {rhs_dilation=}, {feature_group_count=}, {precision=}'
        )
    del dimension_numbers  # NHWC, as Flax always says.
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padding = tuple(map(tuple, padding))
    if min(min(pair) for pair in padding) < 0:
        raise ValueError(f'conv takes no negative padding, got {padding=}')
    return form(x, kernel, tuple(strides), padding)


# By the setting `convolution`, as the `conv_general_dilated` of `flax.linen.Conv`.
FORMS = {
    'auto': conv,
    'plain': lax.conv_general_dilated,
    'patches': functools.partial(conv, form=patches.conv),
}


def depth_to_space(x: chex.Array) -> chex.Array:
    """`[B, H, W, 4 C]` as `[B, 2 H, 2 W, C]`: a pixel's channels become a block of 2x2 pixels."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
