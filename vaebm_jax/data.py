"""Images: from a source (sources.py) to batches on the devices.

The order is a law, not a state: iteration n sees the images `batch_indices(key, n, ...)`, a
permutation for each epoch, so that a run goes on anywhere. What fits is held on every device as
8-bit integers and gathered there; larger files are streamed from disk, a folder's by Grain.
"""

import dataclasses
import functools
from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax import logs
from vaebm_jax.array_file import ArrayFile
from vaebm_jax.base import Batch
from vaebm_jax.config import DataConfig
from vaebm_jax.folder import Folder
from vaebm_jax.keys import chain_keys
from vaebm_jax.sources import check_split, source_of

Files = Folder | ArrayFile  # On disk, not read.


def load_images(data: DataConfig, split: str = 'train') -> np.ndarray | Files:
    """The images of a split: `[N, H, W, C]` uint8, or files larger than `resident_bytes`.

    Points are float32.

    Raises:
      UserError: if the set is not where it is looked for, or has no such split.
    """
    images = open_images(data, split)
    return images if isinstance(images, np.ndarray) else images.resident()


def open_images(data: DataConfig, split: str = 'train') -> np.ndarray | Files:
    """As `load_images`, but nothing of files on disk is read."""
    source = source_of(data)
    if source.splits is not None:
        check_split(data.name, split, source.splits)
    return source.load(data, split)


def batch_indices(key: chex.PRNGKey, step: int, num_images: int, batch_size: int) -> np.ndarray:
    """Which images iteration `step` sees, `[batch_size]`: a slice of its epoch's permutation.

    What an epoch's last whole batch leaves over is left out, other images in each epoch.
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


def first_images(data: DataConfig, split: str, num_images: int | None) -> np.ndarray:
    """The first images of a split, whole, `[n, H, W, C]` uint8; None: all."""
    images = open_images(dataclasses.replace(data, load_size=0), split)
    if not isinstance(images, np.ndarray):
        return images.read(range(len(images))[:num_images])
    return images[:num_images]


def image_parts(data: DataConfig, split: str, part_bytes: int = 2**23) -> Iterator[np.ndarray]:
    """All images of a split, whole, in parts of at most `part_bytes`: `[n, H, W, C]` uint8 each.

    Of files no more than a part is read at a time, and nothing before the first is asked for.
    """
    images = open_images(dataclasses.replace(data, load_size=0), split)
    size = max(1, part_bytes // int(np.prod(images[0].shape)))
    firsts = range(0, len(images), size)
    for first in logs.tracked(firsts, f'reading {split}', 'images', len(images), size):
        rows = slice(first, first + size)
        is_held = isinstance(images, np.ndarray)
        yield images[rows] if is_held else images.read(range(len(images))[rows])


def check_splits(data: DataConfig, *splits: str) -> None:
    """Raises a UserError, before any work, where files on disk have no images of a split."""
    if source_of(data).splits is None:
        for split in splits:
            open_images(dataclasses.replace(data, skip_unreadable=False), split)


def held_out(data: DataConfig) -> str:
    """The split to look at while training: val of files that have one, else test."""
    return 'val' if source_of(data).has_val(data) else 'test'


def make_batch(
    key: chex.PRNGKey, images: chex.Array, data: DataConfig, first: chex.Numeric = 0
) -> Batch:
    """From 8 bits to [-1, 1]: x / 127.5 - 1, with the config's crops, flips, noise and headroom.

    What is no integer has units of its own, and stays as it is.

    Args:
      key: this iteration's.
      images: `[B, H, W, C]` uint8, of `data.load_size` where it is given; or points, float32.
      data: says what is done.
      first: the index of the first image in the global batch; draws follow the global index.
    """
    data.freeze()
    if jnp.issubdtype(images.dtype, jnp.floating):
        return Batch(images)
    keys = chain_keys(key, images.shape[0], first)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
    if images.shape[1] > data.image_size:
        crop = functools.partial(_random_crop, size=data.image_size)
        images = jax.vmap(crop)(keys[:, 2], images)
    if data.flip:
        is_flipped = jax.vmap(lambda key: jax.random.bernoulli(key, np.float32(0.5)))(keys[:, 0])
        images = jnp.where(is_flipped[:, None, None, None], images[:, :, ::-1], images)
    image = images.astype(jnp.float32)
    if data.dequantize:
        shape = images.shape[1:]
        noise = jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32))(keys[:, 1])
        image = (image + noise) / 128.0 - 1.0
    else:
        image = image / 127.5 - 1.0
    return Batch(image + beyond_ends(images, data.headroom, jnp.float32))


def _random_crop(key, image, size):
    corner = jax.random.randint(key, (2,), 0, image.shape[0] - size + 1, jnp.int32)
    return jax.lax.dynamic_slice(image, (*corner, np.int32(0)), (size, size, image.shape[-1]))


def as_pixels(images: np.ndarray, headroom: float = 0.0) -> np.ndarray:
    """uint8 images as float32 in [-1, 1], and its headroom; points stay as they are."""
    if np.issubdtype(images.dtype, np.floating):
        return images
    return np.asarray(images / 127.5 - 1.0 + beyond_ends(images, headroom), np.float32)


def beyond_ends(
    images: chex.Array, headroom: float, dtype: chex.ArrayDType = np.float64
) -> chex.Array:
    """What is added to pixels of 0 and 255, of which 8 bits say: at least so dark, so light."""
    return headroom * ((images == 255).astype(dtype) - (images == 0).astype(dtype))


def stream(
    files: Files, key: chex.PRNGKey, batch_size: int, rows: slice, first_step: int, last_step: int
) -> Iterator[np.ndarray]:
    """Reads iterations `first_step` to `last_step` from disk, some ahead of their use.

    Args:
      files: where.
      key: of the order of images.
      batch_size: over all processes.
      rows: this process's share of each batch.
      first_step: the first iteration.
      last_step: one past the last.

    Yields:
      `[rows, H, W, C]` uint8, an iteration each.
    """

    def read(step):
        indices = batch_indices(key, int(step), len(files), batch_size)[rows]
        return np.stack([files[index] for index in indices])

    if isinstance(files, ArrayFile):  # Nothing is decoded.
        return map(read, range(first_step, last_step))
    import grain

    steps = grain.MapDataset.range(first_step, last_step).map(read)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=8, prefetch_buffer_size=16)))
