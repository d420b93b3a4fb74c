"""Images: from scikit-learn, TFDS, a folder or a known density to batches on the devices.

The order is a law, not a state: iteration n sees the images `batch_indices(key, n, ...)`, a
permutation for each epoch, so that a run goes on anywhere. What fits is held on every device as
8-bit integers and gathered there; a larger folder is streamed from disk by Grain.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vaebm_jax import logs, tfds_sets, toy
from vaebm_jax.base import Batch
from vaebm_jax.config import FOLDERS, POINTS, DataConfig
from vaebm_jax.errors import UserError
from vaebm_jax.files import at_home
from vaebm_jax.folders import describe, image_files, split_folders
from vaebm_jax.images import read_with_largest
from vaebm_jax.keys import chain_keys

_DIGITS_IN_TRAIN = 1500
_NUM_LOOKED_AT = 16
_SALT = 'vaebm_jax split 1\0'  # Another one would share out every folder anew.
_NUM_POINTS = {'train': 1_000_000, 'val': 100_000, 'test': 100_000}


class Folder:
    """Image files below `data.dir`, of its folder for the split where there are such (folders.py).

    A sequence of `[size, size, C]` uint8 images, read when asked for: the largest centred square,
    or that of one half, resized, grey or RGB.

    Attributes:
      files: of the split.
      listing: of all files that the split's are taken from, `count` and `digest`, a SHA-256 of
        their paths below the folder; kept with checkpoints.
      has_splits: whether the folder has a folder for each split.
    """

    def __init__(self, data: DataConfig, split: str):
        root = _folder(data)
        splits = split_folders(root)
        if splits:
            _check_split(data, split, splits)
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
        self.crop = data.crop
        self.white_level = data.white_level
        self.largest = set()  # Values of the 16-bit files that were read.
        if data.skip_unreadable:
            self.files = self._readable()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        height, width, channels = self.image_shape
        image, largest = read_with_largest(self.files[index], channels, self.white_level)
        if largest is not None:
            self.largest.add(largest)
        if self.crop != 'center':
            start = 0 if self.crop == 'left' else image.width - image.width // 2
            image = image.crop((start, 0, start + image.width // 2, image.height))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        resized = square.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(resized, np.uint8).reshape(self.image_shape)

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
            kept = list(logs.tracked(readable, 'trying the images', 'files', total))
        if not any(kept):
            raise UserError(f'data.dir holds {total} files and no image that can be read')
        skipped = list(itertools.compress(self.files, np.logical_not(kept)))
        if skipped:
            names = ', '.join(map(str, skipped[:3])) + (', ...' if len(skipped) > 3 else '')
            logs.say(f'skipped {len(skipped)} of {total} files that cannot be read: {names}')
        return list(itertools.compress(self.files, kept))


def _folder(data):
    """Where a folder's images are."""
    variable = f'{data.name.upper()}_DIR'
    place = data.dir or os.environ.get(variable, '')
    root = at_home(place)
    if not place or not root.is_dir():
        other = '' if data.name == 'folder' else f' ({variable} names one, too)'
        raise UserError(f'data.dir must be a folder of images{other}, got {place!r}')
    return root


def shared_out(names: Sequence[str], data: DataConfig) -> dict[str, list[int]]:
    """Which of a folder's files are of which split, by the rank of a hash of their names.

    The counts are the shares, rounded, but at least one for each split that has a share, and for
    train. The first ranks are val's and the last ones test's: one file more or less moves at most
    one other to or from each of them.

    Args:
      names: paths of the files below the folder.
      data: has the shares.

    Returns:
      The indices into `names`, ascending, a list a split.

    Raises:
      UserError: for fewer files than splits.
    """
    shares = {'val_share': data.val_share, 'test_share': data.test_share}
    given = [f'data.{name}={share:g}' for name, share in shares.items() if share]
    total, free = len(names), len(names) - 1 - len(given)
    if free < 0:
        raise UserError(
            f'data.dir must hold at least {1 + len(given)} images with {" and ".join(given)}, '
            f'got {total}'
        )
    counts = []
    for share in shares.values():
        counts.append(min(max(1, round(total * share)), 1 + free) if share else 0)
        free -= max(0, counts[-1] - 1)
    order = sorted(range(total), key=lambda index: _digest(_SALT + names[index]))
    val, train, test = np.split(np.array(order), [counts[0], total - counts[1]])
    return {'train': sorted(train), 'val': sorted(val), 'test': sorted(test)}


def _digest(text):
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _check_split(data: DataConfig, split: str, splits: Iterable[str]) -> None:
    """Raises a UserError where a data set has no such split."""
    if split not in splits:
        raise UserError(f'split must be one of {", ".join(splits)} of {data.name}, got {split!r}')


def load_images(data: DataConfig, split: str = 'train') -> np.ndarray | Folder:
    """The images of a split: `[N, H, W, C]` uint8, or a Folder larger than `resident_bytes`.

    Points are float32, drawn from a seed that is their split's: the same for every run.

    Raises:
      UserError: if the set is not where it is looked for, or has no such split.
    """
    if data.name == 'digits':
        _check_split(data, split, ('train', 'test'))
        return _load_digits(split)
    if data.name in POINTS:
        _check_split(data, split, _NUM_POINTS)
        points = toy.draw(data.name, _NUM_POINTS[split], seed=list(_NUM_POINTS).index(split))
        return points.reshape(-1, 1, 1, 2)
    if data.name not in FOLDERS:
        _check_split(data, split, ('train', 'test'))
        return tfds_sets.load(data, split)
    return read_folder(Folder(data, split), data)


def read_folder(folder: Folder, data: DataConfig) -> np.ndarray | Folder:
    """The images of a folder, or the folder itself if they are larger than `resident_bytes`."""
    if len(folder) * np.prod(folder.image_shape) > data.resident_bytes:
        # A few, from all over the folder, tell how many bits are used.
        _read(folder, range(0, len(folder), -(-len(folder) // _NUM_LOOKED_AT)))
        _say_folder(folder, data)
        return folder
    images = _read(folder, range(len(folder)))
    if data.white_level and not folder.largest:
        raise UserError(
            f'data.white_level must be 0 where no file has 16 bits, got {data.white_level}'
        )
    _say_folder(folder, data)
    return images


def _say_folder(folder, data):
    """How many images there are, what was left out, and if 16 bits are read nearly black."""
    description = folder.description()
    line = f'data: {len(folder):,} images of {data.name}'
    logs.say(f'{line}; {description}' if description else line)
    bits = int(max(folder.largest, default=0)).bit_length()
    if not folder.white_level and 0 < bits < 16:
        logs.say(
            f'warning: the 16-bit files use {bits} bits (largest value {max(folder.largest):,} of '
            f'65,535) and are read dark; --config.data.white_level={2**bits - 1} makes that white'
        )


def _load_digits(split):
    from sklearn.datasets import load_digits

    images = load_digits().images[..., np.newaxis]  # [1797, 8, 8, 1], 0 to 16.
    images = np.round(images * (255 / 16)).astype(np.uint8)
    return images[:_DIGITS_IN_TRAIN] if split == 'train' else images[_DIGITS_IN_TRAIN:]


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
    images = _unread(data, split)
    if isinstance(images, Folder):
        return _read(images, range(len(images))[:num_images])
    return images[:num_images]


def image_parts(data: DataConfig, split: str, part_bytes: int = 2**23) -> Iterator[np.ndarray]:
    """All images of a split, whole, in parts of at most `part_bytes`: `[n, H, W, C]` uint8 each.

    Of a folder no more than a part is read at a time, and nothing before the first is asked for.
    """
    images = _unread(data, split)
    is_folder = isinstance(images, Folder)
    size = max(1, part_bytes // int(np.prod(images[0].shape)))
    firsts = range(0, len(images), size)
    for first in logs.tracked(firsts, f'reading {split}', 'images', len(images), size):
        rows = slice(first, first + size)
        yield _read(images, range(len(images))[rows]) if is_folder else images[rows]


def _unread(data, split):
    """The whole images of a split: a Folder, of which none was read, or an array."""
    data = dataclasses.replace(data, load_size=0)
    return Folder(data, split) if data.name in FOLDERS else load_images(data, split)


def _read(folder, indices):
    with concurrent.futures.ThreadPoolExecutor() as threads:
        return np.stack(list(threads.map(folder.__getitem__, indices)))


def check_splits(data: DataConfig, *splits: str) -> None:
    """Raises a UserError, before any work, where a folder has no images of a split."""
    if data.name in FOLDERS:
        for split in splits:
            Folder(dataclasses.replace(data, skip_unreadable=False), split)


def held_out(data: DataConfig) -> str:
    """The split to look at while training: val of a folder that has one, else test."""
    if data.name not in FOLDERS:
        return 'test'
    splits = split_folders(_folder(data))  # A share counts where there are none.
    return 'val' if ('val' in splits if splits else data.val_share > 0) else 'test'


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
    folder: Folder, key: chex.PRNGKey, batch_size: int, rows: slice, first_step: int, last_step: int
) -> Iterator[np.ndarray]:
    """Reads iterations `first_step` to `last_step` from disk, some ahead of their use.

    Args:
      folder: where.
      key: of the order of images.
      batch_size: over all processes.
      rows: this process's share of each batch.
      first_step: the first iteration.
      last_step: one past the last.

    Yields:
      `[rows, H, W, C]` uint8, an iteration each.
    """
    import grain

    def read(step):
        indices = batch_indices(key, int(step), len(folder), batch_size)[rows]
        return np.stack([folder[index] for index in indices])

    steps = grain.MapDataset.range(first_step, last_step).map(read)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=8, prefetch_buffer_size=16)))
