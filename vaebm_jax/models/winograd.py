"""Convolution and its two gradients as a few matrix products, by Winograd's minimal filtering.

Along one axis, two neighbouring outputs of a filter of 2 taps cost 3 products in place of 4, of 3
taps 4 in place of 6; over both axes 9 in place of 16 and 16 in place of 36. (S. Winograd,
Arithmetic Complexity of Computations, 1980; A. Lavin, S. Gray, CVPR 2016.) The additional sums cost
a few roundings: float32 stays within 2e-6 of the largest value.

A filter of stride s is a filter of stride 1 over blocks of s x s pixels, with its taps grouped
likewise: a 4x4 kernel of stride 2 has 2x2 taps over four times the channels.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np
from jax import lax

# By the number of taps: the transforms of the input, of the filter and of the products, so that
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
    """One of the two spatial axes: two outputs per tile, the input padded to pairs of blocks."""

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
        """The number of products of the plain convolution divided by that of this one."""
        return self.kernel * self.outputs / (self.tiles * (self.taps + 1) * self.stride)

    @property
    def blocks(self):
        return 2 * (self.tiles + 1)

    @property
    def missing(self):
        """Padding before and after the image, up to full pairs of blocks."""
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
    """The factor by which it saves products over the plain convolution; 0: not applicable.

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
    """The cotangent of `conv`'s `x`, of `shape` `[B, H, W, I]`: each of its steps transposed."""
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
    """The cotangent of `conv`'s `kernel`, of `kernel_shape` `[h, w, I, O]`."""
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
    x = x.reshape(*x.shape[:2], columns.blocks, -1)  # In each row a block's pixels are contiguous.

    def of_row(row):
        """The transform of this row of each block: `[B, tiles, tiles, its channels]`."""

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
    """At least float32: XLA's CPU compiler rounds bfloat16 again at each copy of the data."""
    return x.astype(np.promote_types(x.dtype, np.float32))


def _once(x):
    """With a row of zeros below: XLA's CPU compiler computes a pad once, all else for each use."""
    return _pad(x, (0, 1), (0, 0))


def _pad(x, rows, columns):
    """Zeros around height and width; negative counts crop."""
    counts = [(0, 0), rows, columns, *[(0, 0)] * (x.ndim - 3)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(before, after, 0) for before, after in counts])


def _combine(matrices, axes, table, transposed=False):
    """`R @ table @ C.T` of a table of arrays, R and C being the matrices of rows and columns."""
    rows, columns = (np.array(matrices[axis.taps]) for axis in axes)
    if transposed:
        rows, columns = rows.T, columns.T
    lines = [[_weighted(row, line) for row in rows] for line in zip(*table, strict=True)]
    return [[_weighted(column, line) for column in columns] for line in zip(*lines, strict=True)]


def _weighted(weights, parts):
    """The weighted sum; factors of 0 and 1 cost nothing."""
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
