"""A folder of image files as a data set."""

import concurrent.futures
import functools
import hashlib
import itertools
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vaebm_jax.config import DataConfig
from vaebm_jax.data.image_files import read_with_largest
from vaebm_jax.data.listing import describe, image_files, split_folders
from vaebm_jax.data.splits import check_split, held_out_counts
from vaebm_jax.runtime import log
from vaebm_jax.runtime.atomic_files import at_home
from vaebm_jax.runtime.errors import UserError

_NUM_LOOKED_AT = 16
_SALT = 'vaebm_jax split 1\0'  # Another one would change the splits of every folder.


class Folder:
    """Image files below `data.dir`, or below its folder for the split if there is one (listing.py).

    A sequence of `[size, size, C]` uint8 images, read on demand: the largest centred square, of the
    image or of one half, resized, grey or RGB.

    Attributes:
      files: of the split.
      listing: of all files before the split, `count` and `digest`, a SHA-256 of their paths below
        the folder; saved with checkpoints.
      has_splits: whether the folder has a folder for each split.
    """

    def __init__(self, data: DataConfig, split: str):
        root = _folder(data)
        splits = split_folders(root)
        if splits:
            check_split(data.name, split, tuple(splits))
        place = splits.get(split, root)
        self.files, left_out = image_files(place)
        self.description = functools.partial(describe, root, splits, left_out)
        if not self.files:
            found = describe(place, {}, left_out) or 'it is empty'
            raise UserError(
                f'data.dir must hold images (.png, .jpg, .tif and others that Pillow reads), '
                f'found none in {place}: {found}'
            )
        names = [path.relative_to(place).as_posix() for path in self.files]
        self.listing = {'count': len(names), 'digest': _digest('\0'.join(names))}
        self.has_splits = bool(splits)
        if not splits and data.val_share + data.test_share > 0:
            self.files = [self.files[index] for index in shared_out(names, data)[split]]
        if not self.files:
            raise UserError(
                f'data.{split}_share must be above 0 where images of {split} are asked for, '
                f'got 0 for {place}'
            )
        size = (split == 'train' and data.load_size) or data.image_size
        self.image_shape = (size, size, data.num_channels)
        self.data = data
        self.largest = set()  # Values of the 16-bit files that were read.
        if data.skip_unreadable:
            self.files = self._readable()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        height, width, channels = self.image_shape
        image, largest = read_with_largest(self.files[index], channels, self.data.white_level)
        if largest is not None:
            self.largest.add(largest)
        if self.data.crop != 'center':
            start = 0 if self.data.crop == 'left' else image.width - image.width // 2
            image = image.crop((start, 0, start + image.width // 2, image.height))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        resized = square.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(resized, np.uint8).reshape(self.image_shape)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Some of the images, `[n, H, W, C]`, read in parallel."""
        with concurrent.futures.ThreadPoolExecutor() as threads:
            return np.stack(list(threads.map(self.__getitem__, indices)))

    def resident(self) -> 'np.ndarray | Folder':
        """All images, `[N, H, W, C]`, or the folder itself if they exceed `resident_bytes`.

        Logs how many there are, what was left out, and whether 16-bit files look nearly black.
        """
        images = self
        if len(self) * np.prod(self.image_shape) > self.data.resident_bytes:
            # A few, from all over the folder, show how many bits are used.
            self.read(range(0, len(self), -(-len(self) // _NUM_LOOKED_AT)))
        else:
            images = self.read(range(len(self)))
            if self.data.white_level and not self.largest:
                raise UserError(
                    'data.white_level must be 0 where no file has 16 bits, '
                    f'got {self.data.white_level}'
                )
        description = self.description()
        line = f'data: {len(self):,} images of {self.data.name}'
        log.say(f'{line}; {description}' if description else line)
        bits = int(max(self.largest, default=0)).bit_length()
        if not self.data.white_level and 0 < bits < 16:
            log.say(
                f'warning: the 16-bit files use {bits} bits (largest value '
                f'{max(self.largest):,} of 65,535) and are read dark; '
                f'--config.data.white_level={2**bits - 1} makes that white'
            )
        return images

    def _readable(self):
        """The files that can be read; those that cannot are counted, and the first are named."""

        def is_readable(index):
            try:
                self[index]
            except UserError:
                return False
            return True

        with concurrent.futures.ThreadPoolExecutor() as threads:
            readable = threads.map(is_readable, range(len(self.files)))
            total = len(self.files)
            kept = list(log.tracked(readable, 'trying the images', 'files', total))
        if not any(kept):
            raise UserError(f'data.dir holds {total} files and no image that can be read')
        skipped = list(itertools.compress(self.files, np.logical_not(kept)))
        if skipped:
            names = ', '.join(map(str, skipped[:3])) + (', ...' if len(skipped) > 3 else '')
            log.say(f'skipped {len(skipped)} of {total} files that cannot be read: {names}')
        return list(itertools.compress(self.files, kept))


def has_val(data: DataConfig) -> bool:
    """Whether a folder has images for val."""
    splits = split_folders(_folder(data))  # Shares count only without folders for splits.
    return 'val' in splits if splits else data.val_share > 0


def _folder(data):
    """The folder of the images."""
    variable = f'{data.name.upper()}_DIR'
    place = data.dir or os.environ.get(variable, '')
    root = at_home(place)
    if not place or not root.is_dir():
        other = '' if data.name == 'folder' else f' ({variable} names one, too)'
        if root.suffix in ('.npy', '.npz'):
            other = ' (data.name=array reads such a file)'
        raise UserError(f'data.dir must be a folder of images{other}, got {place!r}')
    return root


def shared_out(names: Sequence[str], data: DataConfig) -> dict[str, list[int]]:
    """The split of each of a folder's files, by the rank of a hash of their names.

    The first ranks are val and the last ones test: one file more or less moves at most one other
    file into or out of each of them.

    Args:
      names: paths of the files below the folder.
      data: has the shares.

    Returns:
      The indices into `names`, ascending, one list per split.

    Raises:
      UserError: for fewer files than splits.
    """
    total = len(names)
    num_val, num_test = held_out_counts(total, data)
    order = sorted(range(total), key=lambda index: _digest(_SALT + names[index]))
    val, train, test = np.split(np.array(order), [num_val, total - num_test])
    return {'train': sorted(train), 'val': sorted(val), 'test': sorted(test)}


def _digest(text):
    return hashlib.sha256(os.fsencode(text)).hexdigest()
