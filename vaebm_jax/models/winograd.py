"""2-D convolution and its two gradients with fewer multiplications: Winograd's minimal filtering.

Along one axis, two neighbouring outputs of a filter with 2 taps take 3 products in place of 4, with
3 taps 4 in place of 6; over both axes that is 9 in place of 16, and 16 in place of 36 (S. Winograd,
Arithmetic Complexity of Computations, 1980; A. Lavin, S. Gray, CVPR 2016). It takes more additions,
and with them a few more roundings: float32 results are within 2e-6 of the largest value.

A filter of stride s is treated as a filter of stride 1 over blocks of s x s pixels: a 4x4 kernel of
stride 2 has 2x2 taps over four times as many channels.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np
from jax import lax

# The transforms of the inputs, of the filter and of the products, by the number of taps:
# outputs = OUTPUT @ ((INPUT @ inputs) * (FILTER @ taps)).
_INPUT = {
    2: ((1, -1, 0), (0, 1, 0), (0, -1, 1)),
    3: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
}
_FILTER = {
    2: ((1, 0), (1, 1), (0, 1)),
    3: ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
}
_OUTPUT = {
    2: ((1, 1, 0), (0, 1, 1)),
    3: ((1, 1, 1, 0), (0, 1, -1, -1)),
}


class _Axis(NamedTuple):
    """One spatial axis: each tile has two outputs, and the input is padded to pairs of blocks."""

    size: int
    kernel: int
    stride: int
    padding: tuple[int, int]

    @property
    def taps(self):
        return -(-self.kernel // self.stride)

    @property
    def outputs(self):
        return (self.size + sum(self.padding) - self.kernel) // self.stride + 1

    @property
    def tiles(self):
        return -(-self.outputs // 2)

    @property
    def saving(self):
        """How many times as many products a plain convolution takes."""
        return self.kernel * self.outputs / (self.tiles * (self.taps + 1) * self.stride)

    @property
    def blocks(self):
        return 2 * (self.tiles + 1)

    @property
    def missing(self):
        """The padding before and after the image that fills the pairs of blocks."""
        return self.padding[0], self.blocks * self.stride - self.size - self.padding[0]


def _axes(shape, kernel_shape, strides, padding):
    sizes = shape[1:3], kernel_shape[:2], strides, padding
    return [_Axis(*axis) for axis in zip(*sizes, strict=True)]


def saving(
    shape: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> float:
    """How many times as many products a plain convolution takes; 0 where this form does not exist.

    Args:
      shape: of the images, `[B, H, W, I]`.
      kernel_shape: `[h, w, I, O]`.
      strides: along height and width.
      padding: zeros before and after, along height and width.
    """
    axes = _axes(shape, kernel_shape, strides, padding)
    if any(axis.taps not in _INPUT for axis in axes):
        return 0.0
    return math.prod(axis.saving for axis in axes)


def conv(
    x: chex.Array,
    kernel: chex.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> chex.Array:
    """Convolves `x` `[B, H, W, I]` with `kernel` `[h, w, I, O]`."""
    axes = _axes(x.shape, kernel.shape, strides, padding)
    products = _map(_product, _inputs(x, axes, x.dtype), _filters(kernel, axes, x.dtype))
    tiles = (x.shape[0], axes[0].tiles, axes[1].tiles, kernel.shape[-1])
    outputs = _combine(_OUTPUT, axes, _map(lambda product: product.reshape(tiles), products))
    y = jnp.stack([jnp.stack(row, 3) for row in outputs], 2)
    y = y.reshape(x.shape[0], 2 * axes[0].tiles, 2 * axes[1].tiles, -1)
    return y[:, : axes[0].outputs, : axes[1].outputs]


def input_grad(
    cotangent: chex.Array,
    kernel: chex.Array,
    shape: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> chex.Array:
    """The gradient with respect to `x`, of shape `[B, H, W, I]`: `conv` transposed."""
    axes = _axes(shape, kernel.shape, strides, padding)
    rows, columns = axes
    product = functools.partial(_product, contracted=((1,), (1,)))
    outputs = _outputs(cotangent, axes, cotangent.dtype)
    products = _map(product, outputs, _filters(kernel, axes, cotangent.dtype))
    blocks = (shape[0], rows.tiles, columns.tiles, rows.stride, columns.stride, shape[-1])
    products = _map(lambda product: product.reshape(blocks), products)
    inputs = _combine(_INPUT, axes, products, transposed=True)

    def at_blocks(a, b):  # The sum over the blocks 2 p + a, 2 q + b of tiles p, q.
        parts = [
            _pad(inputs[i][j], (i // 2, 1 - i // 2), (j // 2, 1 - j // 2))
            for i in range(a, len(inputs), 2)
            for j in range(b, len(inputs[0]), 2)
        ]
        return functools.reduce(jnp.add, parts).swapaxes(2, 3)

    x = jnp.stack([jnp.stack([at_blocks(a, b) for b in (0, 1)], 4) for a in (0, 1)], 2)
    x = x.reshape(shape[0], rows.blocks * rows.stride, columns.blocks * columns.stride, -1)
    x = _pad(x, *([-count for count in axis.missing] for axis in axes))
    return x.astype(cotangent.dtype)


def kernel_grad(
    x: chex.Array,
    cotangent: chex.Array,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> chex.Array:
    """The gradient with respect to `kernel`, of `kernel_shape` `[h, w, I, O]`."""
    axes = _axes(x.shape, kernel_shape, strides, padding)
    product = functools.partial(_product, contracted=((0,), (0,)))
    dtype = np.promote_types(x.dtype, np.float32)
    filters = _map(product, _inputs(x, axes, dtype), _outputs(cotangent, axes, dtype))
    taps = _combine(_FILTER, axes, filters, transposed=True)
    rows, columns = axes
    kernel = jnp.stack([jnp.stack(row) for row in taps])
    kernel = kernel.reshape(rows.taps, columns.taps, rows.stride, columns.stride, *kernel_shape[2:])
    kernel = kernel.swapaxes(1, 2)
    kernel = kernel.reshape(
        rows.taps * rows.stride, columns.taps * columns.stride, *kernel_shape[2:]
    )
    return kernel[: kernel_shape[0], : kernel_shape[1]]


def _inputs(x, axes, dtype):
    """The transformed input: `[tiles of all images, channels of a block]` for each product."""
    rows, columns = axes
    x = _once(_pad(x, rows.missing, columns.missing))
    x = x.reshape(*x.shape[:2], columns.blocks, -1)  # In a row, a block's pixels become channels.

    def of_row(row):
        """The transform of one row of every block: `[B, tiles, tiles, channels of that row]`."""

        def block(i, j):
            first = i * rows.stride + row
            pixel_rows = slice(first, first + 2 * rows.stride * rows.tiles, 2 * rows.stride)
            return wide(x[:, pixel_rows, j : j + 2 * columns.tiles : 2])

        blocks = [[block(i, j) for j in range(columns.taps + 1)] for i in range(rows.taps + 1)]
        return _map(lambda v: v.astype(dtype), _combine(_INPUT, axes, blocks))

    size = rows.stride * x.shape[-1]
    of_block = lambda *of_rows: jnp.stack(of_rows, 3).reshape(-1, size)
    return _map(of_block, *(of_row(row) for row in range(rows.stride)))


def _filters(kernel, axes, dtype):
    """The transformed taps: `[channels of a block, O]` for each product."""
    rows, columns = axes
    _, _, inputs, outputs = kernel.shape
    kernel = wide(kernel)
    missing = [axis.taps * axis.stride - axis.kernel for axis in axes]
    kernel = jnp.pad(kernel, ((0, missing[0]), (0, missing[1]), (0, 0), (0, 0)))
    kernel = kernel.reshape(rows.taps, rows.stride, columns.taps, columns.stride, inputs, outputs)
    kernel = kernel.swapaxes(1, 2).reshape(rows.taps, columns.taps, -1, outputs)
    taps = [[kernel[i, j] for j in range(columns.taps)] for i in range(rows.taps)]
    return _map(lambda u: u.astype(dtype), _combine(_FILTER, axes, taps))


def _outputs(cotangent, axes, dtype):
    """The transformed cotangent of the outputs: `[tiles of all images, O]` for each product."""
    rows, columns = axes
    cotangent = _once(_pad(cotangent, *((0, 2 * axis.tiles - axis.outputs) for axis in axes)))

    def every_second(a, b):
        parts = cotangent[:, a : 2 * rows.tiles : 2, b : 2 * columns.tiles : 2]
        return wide(parts.reshape(-1, cotangent.shape[-1]))

    outputs = [[every_second(a, b) for b in (0, 1)] for a in (0, 1)]
    outputs = _combine(_OUTPUT, axes, outputs, transposed=True)
    return _map(lambda y: y.astype(dtype), outputs)


def _product(a, b, contracted=((1,), (0,))):
    dtype = np.promote_types(a.dtype, np.float32)
    return lax.dot_general(a, b, (contracted, ((), ())), preferred_element_type=dtype)


def wide(x):
    """`x` in float32 or wider: XLA's CPU compiler rounds bfloat16 again whenever it copies."""
    return x.astype(np.promote_types(x.dtype, np.float32))


def _once(x):
    """`x` and a row of zeros: XLA's CPU compiler keeps a pad, but recomputes most else per use."""
    return _pad(x, (0, 1), (0, 0))


def _pad(x, rows, columns):
    """Pads height and width with zeros; negative counts crop."""
    counts = [(0, 0), rows, columns, *[(0, 0)] * (x.ndim - 3)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(before, after, 0) for before, after in counts])


def _combine(matrices, axes, table, transposed=False):
    """`R @ table @ C.T`, with R and C the matrices of the axes; the table's cells are arrays."""
    rows, columns = (np.array(matrices[axis.taps]) for axis in axes)
    if transposed:
        rows, columns = rows.T, columns.T
    lines = [[_weighted(row, line) for row in rows] for line in zip(*table, strict=True)]
    return [[_weighted(column, line) for column in columns] for line in zip(*lines, strict=True)]


def _weighted(weights, parts):
    """The weighted sum; weights of 0 and 1 cost no product."""
    terms = []
    for weight, part in zip(weights, parts, strict=True):
        if weight:
            terms.append(part if weight == 1 else -part if weight == -1 else weight * part)
    return functools.reduce(jnp.add, terms)


def _map(function, *tables):
    return [
        [function(*cells) for cells in zip(*rows, strict=True)]
        for rows in zip(*tables, strict=True)
    ]
