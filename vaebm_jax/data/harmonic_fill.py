"""Missing pixels of an image filled in smoothly from around them, without learning."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np


def harmonic_fill(image: chex.Array, is_observed: chex.Array) -> chex.Array:
    """Solves Laplace's equation in the missing region: each pixel is the mean of its neighbours.

    Observed pixels are the boundary values; the image's border has no flow. By conjugate gradients,
    for any region.

    Args:
      image: `[B, H, W, C]`; its missing pixels are ignored.
      is_observed: `[B, H, W]` bool, observed pixels; an image with none is filled with 0.
    """

    def fill(image, is_observed):
        is_missing = ~is_observed[..., jnp.newaxis]
        observed = jnp.where(is_missing, 0.0, image)
        solve = functools.partial(
            jax.scipy.sparse.linalg.cg, tol=1e-5, maxiter=4 * (image.shape[0] + image.shape[1])
        )
        filled, _ = solve(
            lambda x: jnp.where(is_missing, _laplacian(x), 0.0),
            jnp.where(is_missing, -_laplacian(observed), 0.0),
        )
        return jnp.where(is_missing, filled, image)

    return jax.vmap(fill)(image, is_observed)


def _laplacian(x):
    """Minus the Laplacian `[H, W, C]`: the sum of each pixel's differences to its neighbours."""
    down = jnp.pad(jnp.diff(x, axis=0), ((1, 1), (0, 0), (0, 0)))
    right = jnp.pad(jnp.diff(x, axis=1), ((0, 0), (1, 1), (0, 0)))
    return -jnp.diff(down, axis=0) - jnp.diff(right, axis=1)


def fill_rectangles(
    image: chex.Array,
    corners: chex.Array,
    shape: tuple[int, int],
    rims: tuple[tuple[bool, bool], ...] = ((True, True), (True, True)),
) -> chex.Array:
    """The exact harmonic fill of one rectangle per image, by the eigenvectors of each axis.

    Args:
      image: `[B, H, W, C]`; pixels in the rectangle are ignored.
      corners: `[B, 2]`, the first row and column of each rectangle.
      shape: its rows and columns, the same for all.
      rims: for rows and columns, whether there are observed pixels before and after the rectangle.
    """
    (row_values, rows), (column_values, columns) = (
        _modes(pixels, *rim, image.dtype.name) for pixels, rim in zip(shape, rims, strict=True)
    )
    values = np.add.outer(row_values, column_values)[np.newaxis]
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

    def fill(image, corner):
        channels = image.shape[-1]
        around = jax.lax.dynamic_slice(
            jnp.pad(image, ((1, 1), (1, 1), (0, 0))),
            (*corner, np.int32(0)),
            (shape[0] + 2, shape[1] + 2, channels),
        )
        (top, bottom), (left, right) = np.array(rims, image.dtype)
        flow = jnp.zeros((*shape, channels), image.dtype)
        flow = flow.at[0].add(top * around[0, 1:-1]).at[-1].add(bottom * around[-1, 1:-1])
        flow = flow.at[:, 0].add(left * around[1:-1, 0])
        flow = flow.at[:, -1].add(right * around[1:-1, -1])
        # With the channels last, the GPU's compiler finds no tiles for these products (JAX 0.10.2).
        flow = flow.transpose(2, 0, 1)
        modes = product('hi,chj->cij', rows, product('chw,wj->chj', flow, columns)) / values
        filled = product('hi,cij->chj', rows, modes)
        filled = product('chj,wj->hwc', filled, columns)
        return jax.lax.dynamic_update_slice(image, filled, (*corner, np.int32(0)))

    return jax.vmap(fill)(image, jnp.asarray(corners, jnp.int32))


def edge_profiles(image: chex.Array, corners: chex.Array, shape: tuple[int, int]) -> chex.Array:
    """The high frequencies along the strips around a rectangle, `[B, H, W, C]`.

    The sum of two profiles, each minus its Gaussian mean: of rows, over the strips left and right,
    and of columns, over those above and below. Strips are an eighth of the image wide, the mean's
    standard deviation is a thirteenth.

    Args:
      image: `[B, H, W, C]`; pixels in the rectangle are ignored.
      corners: `[B, 2]`, the first row and column of each rectangle.
      shape: its rows and columns.
    """
    size = image.shape[1:3]

    def strips(axis, start):
        """The weight of each row or column: 1 near the rectangle, before or after it."""
        line = jnp.arange(size[axis], dtype=jnp.int32)
        before = (line >= start - size[axis] // 8) & (line < start)
        after = (line >= start + shape[axis]) & (line < start + shape[axis] + size[axis] // 8)
        weight = (before | after).astype(image.dtype)
        return weight / jnp.maximum(jnp.sum(weight), 1.0)

    def profiles(image, corner):
        rows = _fast(size[0]) @ jnp.einsum('hwc,w->hc', image, strips(1, corner[1]))
        columns = _fast(size[1]) @ jnp.einsum('hwc,h->wc', image, strips(0, corner[0]))
        return rows[:, jnp.newaxis] + columns[jnp.newaxis]

    return jax.vmap(profiles)(image, corners)


@functools.lru_cache
def _fast(num_pixels):
    """The matrix that subtracts a line's Gaussian mean."""
    distance = np.subtract.outer(np.arange(num_pixels), np.arange(num_pixels))
    weights = np.exp(-0.5 * (distance / (num_pixels * 20.0 / 256.0)) ** 2)
    return np.float32(np.eye(num_pixels) - weights / weights.sum(axis=1, keepdims=True))


@functools.lru_cache
def _modes(num_pixels, has_rim_before, has_rim_after, dtype):
    """Eigenvalues and eigenvectors of minus the second difference along one axis."""
    matrix = 2.0 * np.eye(num_pixels) - np.eye(num_pixels, k=1) - np.eye(num_pixels, k=-1)
    matrix[0, 0] -= not has_rim_before
    matrix[-1, -1] -= not has_rim_after
    values, vectors = np.linalg.eigh(matrix)
    return np.maximum(values, 0.0).astype(dtype), vectors.astype(dtype)
