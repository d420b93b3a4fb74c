"""The order of images, and reading images from disk in this order.

The order is a function of the step, not a state: iteration n gets the images
`batch_indices(key, n, ...)`, from one permutation per epoch, so a run can resume anywhere. Data
sets that fit are stored on every device as 8-bit integers; larger ones are read from disk.
"""

import functools
from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax.data.array_file import ArrayFile
from vaebm_jax.data.loading import Files


def batch_indices(key: chex.PRNGKey, step: int, num_images: int, batch_size: int) -> np.ndarray:
    """The images of iteration `step`, `[batch_size]`: a slice of its epoch's permutation.

    The remainder after an epoch's last full batch is left out, other images in each epoch.
    """
    epoch, position = divmod(step, num_images // batch_size)
    key_data = tuple(np.asarray(jax.random.key_data(key)).tolist())
    order = _permutation(key_data, jax.random.key_impl(key), epoch, num_images)
    return order[position * batch_size : (position + 1) * batch_size]


@functools.lru_cache(maxsize=2)
def _permutation(key_data, impl, epoch, num_images):
    key = jax.random.wrap_key_data(np.array(key_data, np.uint32), impl=impl)
    images = jnp.arange(num_images, dtype=jnp.int32)
    return np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), images))


def stream(
    files: Files, key: chex.PRNGKey, batch_size: int, rows: slice, first_step: int, last_step: int
) -> Iterator[np.ndarray]:
    """Reads the batches of iterations `first_step` to `last_step` from disk, prefetching some.

    Args:
      files: the images.
      key: of the order of images.
      batch_size: over all processes.
      rows: this process's share of each batch.
      first_step: the first iteration.
      last_step: one past the last.

    Yields:
      `[rows, H, W, C]` uint8, one per iteration.
    """

    def read(step):
        indices = batch_indices(key, int(step), len(files), batch_size)[rows]
        return np.stack([files[index] for index in indices])

    if isinstance(files, ArrayFile):  # Nothing is decoded.
        return map(read, range(first_step, last_step))
    import grain

    steps = grain.MapDataset.range(first_step, last_step).map(read)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=8, prefetch_buffer_size=16)))
