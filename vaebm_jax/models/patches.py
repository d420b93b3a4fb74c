"""2-D convolution as products of matrices, and without a stride: for GPUs, not yet measured there.

cuDNN's convolutions of 3 channels and its input gradients of a stride run far below a GPU's rate
(docs/performance.md). Few inputs: the patches that the kernel sees, times the kernel as a matrix.
Few outputs: the product comes first, and its taps are shifted and summed. A stride of s: a kernel
of stride 1 over blocks of s x s pixels. Each has the other's form, or its own, as its gradient; JAX
derives them.
"""

from collections.abc import Sequence

import chex
import jax.numpy as jnp
import numpy as np
from jax import lax

_EIGHT = 8  # Channels that a tensor core takes at once.


def conv(
    x: chex.Array,
    kernel: chex.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> chex.Array:
    """`[B, H, W, I]` and `[h, w, I, O]` to `[B, H', W', O]`, float32 for bfloat16 operands."""
    inputs, outputs = kernel.shape[2:]
    if inputs < _EIGHT:
        y = _of_patches(x, kernel, strides, padding)
    elif outputs < _EIGHT:
        y = _of_taps(x, kernel, strides, padding)
    else:
        if max(strides) > 1 and not any(np.mod(kernel.shape[:2], strides)):
            x, kernel = _in_blocks(x, kernel, strides, padding)
            strides, padding = (1, 1), 'VALID'
        order = ('NHWC', 'HWIO', 'NHWC')
        y = lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=order)
    return y.astype(_wide(x.dtype))


def _wide(dtype):
    return np.promote_types(dtype, np.float32)


def _windows(x, kernel, strides):
    """Where each tap of a kernel reads a padded image: rows and columns."""
    last = [size - taps for size, taps in zip(x.shape[1:3], kernel.shape[:2], strict=True)]
    for row, column in np.ndindex(*kernel.shape[:2]):
        rows = slice(row, row + last[0] + 1, strides[0])
        columns = slice(column, column + last[1] + 1, strides[1])
        yield rows, columns


def _pad(x, padding):
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def _of_patches(x, kernel, strides, padding):
    # Wide until they are side by side: the gradient is then a sum in float32.
    padded = _pad(x.astype(_wide(x.dtype)), padding)
    taps = [padded[:, rows, columns] for rows, columns in _windows(padded, kernel, strides)]
    kernel = kernel.reshape(-1, kernel.shape[-1])
    missing = -len(kernel) % _EIGHT
    taps.append(jnp.zeros((*taps[0].shape[:3], missing), padded.dtype))
    patches = jnp.concatenate(taps, axis=-1).astype(x.dtype)
    return patches @ jnp.pad(kernel, ((0, missing), (0, 0)))


def _of_taps(x, kernel, strides, padding):
    inputs, outputs = kernel.shape[2:]
    matrix = kernel.transpose(2, 0, 1, 3).reshape(inputs, -1)
    products = x @ jnp.pad(matrix, ((0, 0), (0, -matrix.shape[1] % _EIGHT)))
    padded = _pad(products.astype(_wide(x.dtype)), padding)
    return sum(
        padded[:, rows, columns, outputs * tap : outputs * (tap + 1)]
        for tap, (rows, columns) in enumerate(_windows(padded, kernel, strides))
    )


def _in_blocks(x, kernel, strides, padding):
    """Image and kernel with blocks of the strides' size as their pixels."""
    sizes = zip(x.shape[1:3], kernel.shape[:2], strides, padding, strict=True)
    edges = []
    for size, taps, stride, (before, after) in sizes:
        outputs = (size + before + after - taps) // stride + 1
        # Negative where the last pixels are not read.
        edges.append((before, (outputs - 1) * stride + taps - size - before, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    return _blocks(x, strides), _blocks(kernel.transpose(3, 0, 1, 2), strides).transpose(1, 2, 3, 0)


def _blocks(x, strides):
    """Space to depth: the pixels of a block become channels of one."""
    batch, height, width, channels = x.shape
    rows, columns = strides
    x = x.reshape(batch, height // rows, rows, width // columns, columns, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // rows, width // columns, -1)
