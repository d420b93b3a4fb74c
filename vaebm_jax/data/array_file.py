"""An array of images in one `.npy` or `.npz` file as a data set."""

import functools
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from vaebm_jax.config import DataConfig
from vaebm_jax.data.splits import check_split, held_out_counts
from vaebm_jax.runtime import log
from vaebm_jax.runtime.atomic_files import at_home
from vaebm_jax.runtime.errors import UserError

_PART = 2**22  # Numbers that are converted at a time.


class ArrayFile:
    """Images `[N, H, W, C]` or `[N, H, W]` in the file `data.dir`, read on demand.

    The last rows are test, those before them val, and the rest is train; if neither has a share,
    each split is all images. Images of 8 bits stay so; others become float32 in [-1, 1].

    Attributes:
      images: of the split, as they are stored; memory-mapped if the file is an `.npy`.
      ends: the stored values that become -1 and 1.
      listing: of all images, `count` and `digest`, of the array's shape, and of dtype and ends if
        they are not those of 8 bits; saved with checkpoints.
      has_splits: False: its splits are shares.
    """

    has_splits = False

    def __init__(self, data: DataConfig, split: str):
        check_split(data.name, split, ('train', 'val', 'test'))
        images = _images(data)
        self.ends = _ends(images, data)
        self.is_8_bit = images.dtype == np.uint8 and self.ends == (0, 255)
        for name, value in (('headroom', data.headroom), ('dequantize', data.dequantize)):
            if value and not self.is_8_bit:
                raise UserError(
                    f'data.{name} must be {type(value)()} for images that are not of 8 bits, got '
                    f'{value} for {images.dtype} in {data.dir!r}'
                )
        kind = '' if self.is_8_bit else f' {images.dtype.str} {self.ends}'
        self.listing = {
            'count': len(images),
            'digest': hashlib.sha256(f'{images.shape}{kind}'.encode()).hexdigest(),
        }
        val, test = held_out_counts(len(images), data)
        if val + test:
            starts = {'train': 0, 'val': len(images) - test - val, 'test': len(images) - test}
            ends = {'train': starts['val'], 'val': starts['test'], 'test': len(images)}
            images = images[starts[split] : ends[split]]
        if not len(images):
            raise UserError(
                f'data.{split}_share must be above 0 where images of {split} are asked for, '
                f'got 0 for {data.dir}'
            )
        self.images, self.data = images, data

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.read([index])[0]

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Some of the images, `[n, H, W, C]`, uint8 or float32 in [-1, 1]."""
        return self._pixels(np.asarray(self.images[indices]))

    def resident(self) -> 'np.ndarray | ArrayFile':
        """All images, or itself if they exceed `resident_bytes`; logs how many, and their range."""
        low, high = self.ends
        log.say(
            f'data: {len(self):,} images of {self.data.name}; range {low:g} to {high:g} mapped to '
            '[-1, 1]'
        )
        num_bytes = self.images.size * (1 if self.is_8_bit else 4)
        if num_bytes > self.data.resident_bytes:
            return self
        size = max(1, _PART // self.images[0].size)
        pixels = np.empty(self.images.shape, np.uint8 if self.is_8_bit else np.float32)
        for first in range(0, len(self), size):
            pixels[first : first + size] = self._pixels(self.images[first : first + size])
        return pixels

    def _pixels(self, images):
        if self.is_8_bit:
            return images
        low, high = self.ends
        scale = 2.0 / (high - low)
        return np.asarray(images * np.float64(scale) - (1.0 + low * scale), np.float32)


def _images(data):
    """All images of the file, `[N, H, W, C]`."""
    path = at_home(data.dir)
    images = _stored(*_version(path), data.array_name, data.dir)
    if images.dtype.kind not in 'uif' or images.ndim not in (3, 4):
        raise UserError(
            f'data.dir must be an array of numbers [N, H, W, C] or [N, H, W], got {images.dtype} '
            f'{list(images.shape)} in {data.dir!r}'
        )
    images = images if images.ndim == 4 else images[..., np.newaxis]
    size, channels = data.image_size, data.num_channels
    if images.shape[1:] != (size, size, channels):
        height, width, depth = images.shape[1:]
        raise UserError(
            f'data.image_size and data.num_channels must be those of the images in {data.dir!r}, '
            f'{height}x{width} pixels and {depth} channels, got {size} and {channels}'
        )
    if not len(images):
        raise UserError(f'data.dir must hold images, got none in {data.dir!r}')
    return images


def _version(path):
    """A path and what changes with the file's content."""
    try:
        status = path.stat()
    except OSError:
        return path, 0, 0  # The reader says what is wrong.
    return path, status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=2)
def _stored(path: pathlib.Path, modified: int, size: int, name: str, given: str) -> np.ndarray:
    """The array of a file: of an `.npz` the only one, or the one of this name."""
    del modified, size
    try:
        content = np.load(path, mmap_mode='r')
        if isinstance(content, np.ndarray):
            if name:
                raise UserError(f"data.array_name must be '' for an .npy file, got {name!r}")
            return content
        with content:
            if not name and len(content.files) != 1 or name and name not in content.files:
                raise UserError(
                    f'data.array_name must be one of {", ".join(content.files)}, the arrays in '
                    f'{given!r}, got {name!r}'
                )
            return content[name or content.files[0]]
    except UserError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = ' '.join(str(error).split())
        raise UserError(
            f'data.dir must be an .npy or .npz file of images, got {given!r} ({reason})'
        ) from error


def _ends(images, data):
    """The values that become -1 and 1."""
    if images.dtype == np.uint8 and not data.value_range:
        return 0, 255
    low, high = _extremes(*_version(at_home(data.dir)), data.array_name, data.dir)
    seen = f'they are from {low:g} to {high:g}'
    if not np.isfinite([low, high]).all():
        raise UserError(f'data.dir must hold finite numbers, got others in {data.dir!r}: {seen}')
    if data.value_range:
        if low < data.value_range[0] or high > data.value_range[1]:
            raise UserError(
                f'data.value_range must include all values in {data.dir!r}, got '
                f'{data.value_range}: {seen}'
            )
        return data.value_range
    if images.dtype.kind == 'f' and -1 <= low and high <= 1:
        return (0, 1) if low >= 0 else (-1, 1)
    raise UserError(
        f'data.value_range must say which values become -1 and 1, such as ({low:g},{high:g}): '
        f'those in {data.dir!r} are of {images.dtype} and neither in [0, 1] nor in [-1, 1]; {seen}'
    )


@functools.lru_cache(maxsize=2)
def _extremes(*version: int | str | os.PathLike) -> tuple[float, float]:
    """The smallest and largest value of an array; NaN if there is one."""
    images = _stored(*version)
    size = max(1, _PART // max(1, images[0].size))
    firsts = range(0, len(images), size)
    parts = [
        (np.min(part), np.max(part))
        for first in log.tracked(firsts, 'reading the range of values', 'images', len(images), size)
        for part in [images[first : first + size]]
    ]
    lows, highs = np.array(parts, np.float64).T
    return float(lows.min()), float(highs.max())
