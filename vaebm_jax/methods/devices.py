"""A device's share of a step's chains, images and keys, and means over all devices.

`axis_name` is the mapped axis of devices; None: there is one device.
"""

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.samplers.keys import chain_keys


def local_chains(
    config: Config, batch: Batch, axis_name: str | None = None
) -> tuple[int, chex.Numeric]:
    """This device's number of chains, and the global index of its first chain."""
    num_devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    num_chains, rest = divmod(config.num_chains, num_devices)
    if rest:
        raise ValueError(
            f'num_chains must divide over {num_devices} devices, got {config.num_chains}'
        )
    num_chains = num_chains or batch.image.shape[0]
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    return num_chains, device * num_chains


def image_keys(key: chex.PRNGKey, batch: Batch, axis_name: str | None = None) -> chex.PRNGKey:
    """A key for each of this device's images, by the image's global index."""
    num_images = batch.image.shape[0]
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    return chain_keys(key, num_images, device * num_images)


def rows_of_part(
    part: chex.Numeric, num_parts: int, batch: Batch, axis_name: str | None = None
) -> tuple[chex.Array, chex.Array]:
    """This device's images of a part of the batch: those whose global index mod `num_parts` is it.

    The same images on any number of devices.

    Returns:
      Rows of the local batch, `[ceil(B / num_parts)]`, and a weight for each: the mean over devices
      of the weighted sums is the mean over the part. Rows that are not of the part have weight 0.
    """
    num_images = batch.image.shape[0]
    num_devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    first = (part - device * num_images) % num_parts
    rows = first + num_parts * jnp.arange(-(-num_images // num_parts))
    size = (num_devices * num_images - part + num_parts - 1) // num_parts
    weights = jnp.where(rows < num_images, jnp.float32(num_devices) / size, 0.0)
    return jnp.minimum(rows, num_images - 1), weights


def chain_condition(condition: chex.Array | None, num_chains: int) -> chex.Array | None:
    """Each chain's condition `[num_chains, ...]`: that of image `i // k` for k chains per image."""
    if condition is None:
        return None
    repeats, rest = divmod(num_chains, condition.shape[0])
    if rest:
        raise ValueError(
            'with a condition, num_chains must be a multiple of batch_size: '
            f'got {num_chains} chains for {condition.shape[0]} images'
        )
    return jnp.repeat(condition, repeats, axis=0)


def mean_over_devices(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
    """The mean over the mapped axis; `tree` itself if there is none."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def all_rows(rows: chex.Array, first: chex.Numeric, axis_name: str | None = None) -> chex.Array:
    """The rows of all devices, `[D * n, ...]` of a device's `[n, ...]`, by their global index.

    Bit for bit: each row is added to zeros.

    Args:
      rows: this device's, whole numbers.
      first: the global index of this device's first row.
      axis_name: the mapped axis of devices, if there is one.
    """
    if axis_name is None:
        return rows
    num_rows = jax.lax.axis_size(axis_name) * len(rows)
    places = first + jnp.arange(len(rows), dtype=jnp.int32)
    spread = jnp.zeros((num_rows, *rows.shape[1:]), jnp.int32).at[places].set(rows)
    return jax.lax.psum(spread, axis_name).astype(rows.dtype)


def local_copy(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
    """Replicated values as device-local ones, so their gradient is that of the local device.

    `jax.shard_map` sums the gradient of replicated values over devices, unless check_vma=False; the
    mean of such sums would be too large by the number of devices.
    """
    if axis_name is None or jax.typeof(jax.lax.axis_index(axis_name)) == jax.typeof(jnp.int32(0)):
        return tree
    return jax.lax.pcast(tree, axis_name, to='varying')
