"""The images of a split, from a source (sources.py), or as files on disk if they are too large."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from vaebm_jax.config import DataConfig
from vaebm_jax.data.array_file import ArrayFile
from vaebm_jax.data.folder import Folder
from vaebm_jax.data.sources import source_of
from vaebm_jax.data.splits import check_split
from vaebm_jax.runtime import log

Files = Folder | ArrayFile  # On disk, not read.


def load_images(data: DataConfig, split: str = 'train') -> np.ndarray | Files:
    """The images of a split: `[N, H, W, C]` uint8, or files larger than `resident_bytes`.

    Points are float32.

    Raises:
      UserError: if the set is not found, or has no such split.
    """
    images = open_images(data, split)
    return images if isinstance(images, np.ndarray) else images.resident()


def open_images(data: DataConfig, split: str = 'train') -> np.ndarray | Files:
    """As `load_images`, but files on disk are not read."""
    source = source_of(data)
    if source.splits is not None:
        check_split(data.name, split, source.splits)
    images = source.load(data, split)
    is_smaller = source.image_size is not None and data.image_size < source.image_size
    return block_means(images, data.image_size) if is_smaller else images


def block_means(images: np.ndarray, size: int) -> np.ndarray:
    """Images made smaller, each pixel the mean of a block: `[N, size, size, C]` uint8, rounded.

    Args:
      images: `[N, H, H, C]` uint8; `size` divides H.
      size: pixels a side.
    """
    block = images.shape[1] // size
    blocks = images.reshape(len(images), size, block, size, block, images.shape[-1])
    return ((blocks.sum(axis=(2, 4), dtype=np.uint32) + block**2 // 2) // block**2).astype(np.uint8)


def first_images(data: DataConfig, split: str, num_images: int | None) -> np.ndarray:
    """The first images of a split, not cropped, `[n, H, W, C]` uint8; None: all."""
    images = open_images(dataclasses.replace(data, load_size=0), split)
    if not isinstance(images, np.ndarray):
        return images.read(range(len(images))[:num_images])
    return images[:num_images]


def image_parts(data: DataConfig, split: str, part_bytes: int = 2**23) -> Iterator[np.ndarray]:
    """All images of a split, not cropped, in parts of at most `part_bytes`: `[n, H, W, C]` uint8.

    Files are read one part at a time, on demand.
    """
    images = open_images(dataclasses.replace(data, load_size=0), split)
    size = max(1, part_bytes // int(np.prod(images[0].shape)))
    firsts = range(0, len(images), size)
    for first in log.tracked(firsts, f'reading {split}', 'images', len(images), size):
        rows = slice(first, first + size)
        is_held = isinstance(images, np.ndarray)
        yield images[rows] if is_held else images.read(range(len(images))[rows])


def check_splits(data: DataConfig, *splits: str) -> None:
    """Raises a UserError, before any work, if files on disk have no images of a split."""
    if source_of(data).splits is None:
        for split in splits:
            open_images(dataclasses.replace(data, skip_unreadable=False), split)


def in_words(data: DataConfig, split: str) -> str:
    """Which images those of a split are: of a folder or array without held-out ones, all."""
    if source_of(data).splits is None and not data.val_share + data.test_share:
        if not open_images(data, split).has_splits:
            return 'training images (none is held out)'
    return {'train': 'training', 'val': 'validation', 'test': 'test'}[split] + ' images'


def held_out(data: DataConfig) -> str:
    """The split shown during training: val if the data have one, else test."""
    return 'val' if source_of(data).has_val(data) else 'test'
