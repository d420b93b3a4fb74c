"""An array of images in one `.npy` file as a data set."""

import hashlib
from collections.abc import Sequence

import numpy as np

from vaebm_jax.config import DataConfig
from vaebm_jax.data.splits import check_split, held_out_counts
from vaebm_jax.runtime import log
from vaebm_jax.runtime.atomic_files import at_home
from vaebm_jax.runtime.errors import UserError


class ArrayFile:
    """Images `[N, H, W, C]` or `[N, H, W]` uint8 in the file `data.dir`, read on demand.

    The last rows are test, those before them val, and the rest is train; if neither has a share,
    each split is all images.

    Attributes:
      images: of the split, memory-mapped.
      listing: of all images, `count` and `digest`, of the array's shape; saved with checkpoints.
      has_splits: False: its splits are shares.
    """

    has_splits = False

    def __init__(self, data: DataConfig, split: str):
        check_split(data.name, split, ('train', 'val', 'test'))
        images = _mapped(data)
        self.listing = {
            'count': len(images),
            'digest': hashlib.sha256(str(images.shape).encode()).hexdigest(),
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
        return self.images[index]

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Some of the images, `[n, H, W, C]`."""
        return np.asarray(self.images[indices])

    def resident(self) -> 'np.ndarray | ArrayFile':
        """All images, or itself if they exceed `resident_bytes`; logs how many there are."""
        log.say(f'data: {len(self):,} images of {self.data.name}')
        return self if self.images.nbytes > self.data.resident_bytes else np.array(self.images)


def _mapped(data):
    """All images of the file, `[N, H, W, C]`."""
    place = at_home(data.dir)
    try:
        images = np.load(place, mmap_mode='r')
    except (OSError, ValueError, EOFError) as error:
        reason = ' '.join(str(error).split())
        raise UserError(
            f'data.dir must be an .npy file of images, got {data.dir!r} ({reason})'
        ) from error
    if not isinstance(images, np.memmap) or images.dtype != np.uint8 or images.ndim not in (3, 4):
        found = (
            f'{images.dtype} {list(images.shape)}'
            if isinstance(images, np.ndarray)
            else 'an archive of arrays'
        )
        raise UserError(
            f'data.dir must be an .npy file of uint8 [N, H, W, C] or [N, H, W], '
            f'got {found} in {data.dir!r}'
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
