"""Data sets: `SOURCES` has one row per `data.name`.

A new data set is one more row; the packages that its files need are imported when it is loaded.
"""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vaebm_jax.config import CHOICES, Config, DataConfig, flatten
from vaebm_jax.data.densities import DENSITIES, Density

if TYPE_CHECKING:
    from vaebm_jax.data.array_file import ArrayFile
    from vaebm_jax.data.folder import Folder

_DIGITS_IN_TRAIN = 1500
_NUM_POINTS = {'train': 1_000_000, 'val': 100_000, 'test': 100_000}


# Settings that only some data sets use: their value for the others, and which sets use them.
_OF_SOME = {
    'load_size': (0, 'a folder of images'),
    'white_level': (0, 'a folder of images'),
    'crop': ('center', 'a folder of images'),
    'skip_unreadable': (False, 'a folder of images'),
    'val_share': (0, 'a folder or an array of images'),
    'test_share': (0, 'a folder or an array of images'),
    'array_name': ('', 'an array of images'),
    'value_range': ((), 'an array of images'),
}


class Source(NamedTuple):
    """A data set.

    Attributes:
      load: `(data, split)` to its images: `[N, H, W, C]` uint8; points, `[N, 1, 1, 2]` float32; or
        files on disk, not read yet.
      splits: the names of its splits; None: `load` returns files on disk, and the splits depend on
        these and on the shares of the config.
      image_size: pixels per side, of which a smaller size must be a divisor; None: as configured.
      num_channels: None: as configured, 1 or 3.
      any_channels: whether it may be any other number, too.
      density: of points; None: the data are images.
      has_val: whether there is a split val, shown during training; else test is.
      settings: which of the settings in `_OF_SOME` this data set uses.
      dir: what `data.dir` must be, in words; '': it may be left out; None: no files are read.
    """

    load: Callable[[DataConfig, str], 'np.ndarray | Folder | ArrayFile']
    splits: tuple[str, ...] | None = ('train', 'test')
    image_size: int | None = None
    num_channels: int | None = None
    any_channels: bool = False
    density: Density | None = None
    has_val: Callable[[DataConfig], bool] = lambda data: False
    settings: tuple[str, ...] = ()
    dir: str | None = ''

    def needs(self, config: Config) -> Iterator[tuple[str, str]]:
        """Yields the settings that are wrong for this data set, each with what would be right."""
        name, values = config.data.name, flatten(config)

        def must_be(value, why, *settings):
            words = repr(value) if value in ('', ()) else value
            return ((setting, f'{words} {why}') for setting in settings if values[setting] != value)

        any_channels = self.any_channels or self.density
        if not any_channels and config.data.num_channels not in (1, 3):
            yield 'data.num_channels', '1 or 3'
        if self.image_size is not None and self.image_size % config.data.image_size:
            divisor = ' or a divisor of it' if self.image_size > 1 else ''
            yield 'data.image_size', f'{self.image_size}{divisor} for {name}'
        if self.num_channels is not None:
            yield from must_be(self.num_channels, f'for {name}', 'data.num_channels')
        if self.density:
            of = f'for the points of {name}'
            yield from must_be(False, of, 'data.flip', 'data.dequantize')
            yield from must_be(0, of, 'data.headroom')
            yield from must_be('none', of, 'condition.kind')
            yield from must_be('linear', of, 'network.decoder_output')
        for setting, (value, where) in _OF_SOME.items():
            if setting not in self.settings:
                yield from must_be(value, f'but for {where}', f'data.{setting}')
        if self.dir and not config.data.dir:
            yield 'data.dir', self.dir
        if self.dir is None and config.data.dir:
            yield 'data.dir', f"'' for {name}, which is read from no files"


def source_of(data: DataConfig) -> Source:
    """The row of a config's data set."""
    return SOURCES[data.name]


def density_of(data: DataConfig) -> Density | None:
    """The density of points; None if the data are images."""
    return source_of(data).density


def _digits(data: DataConfig, split: str) -> np.ndarray:
    from sklearn.datasets import load_digits

    images = load_digits().images[..., np.newaxis]  # [1797, 8, 8, 1], 0 to 16.
    images = np.round(images * (255 / 16)).astype(np.uint8)
    return images[:_DIGITS_IN_TRAIN] if split == 'train' else images[_DIGITS_IN_TRAIN:]


def _tfds(data: DataConfig, split: str) -> np.ndarray:
    from vaebm_jax.data import tfds_sets

    return tfds_sets.load(data, split)


def _points(density: Density, data: DataConfig, split: str) -> np.ndarray:
    """Sampled with one seed per split, the same for every run."""
    points = density.draw(_NUM_POINTS[split], seed=list(_NUM_POINTS).index(split))
    return points.reshape(-1, 1, 1, 2)


def _folder(data: DataConfig, split: str) -> 'Folder':
    from vaebm_jax.data.folder import Folder

    return Folder(data, split)


def _folder_has_val(data: DataConfig) -> bool:
    from vaebm_jax.data.folder import has_val

    return has_val(data)


def _array(data: DataConfig, split: str) -> 'ArrayFile':
    from vaebm_jax.data.array_file import ArrayFile

    return ArrayFile(data, split)


_FOLDER = Source(
    _folder,
    splits=None,
    has_val=_folder_has_val,
    settings=tuple(name for name in _OF_SOME if name not in ('array_name', 'value_range')),
)

SOURCES: dict[str, Source] = {
    'digits': Source(_digits, image_size=8, num_channels=1, dir=None),
    'mnist': Source(_tfds, image_size=28, num_channels=1),
    'fashion_mnist': Source(_tfds, image_size=28, num_channels=1),
    'cifar10': Source(_tfds, image_size=32, num_channels=3),
    **{
        name: Source(
            functools.partial(_points, density), tuple(_NUM_POINTS), 1, 2, density=density, dir=None
        )
        for name, density in DENSITIES.items()
    },
    'folder': _FOLDER._replace(dir='the path of a folder of images'),
    'facades': _FOLDER,
    'paris_streetview': _FOLDER,
    'array': Source(
        _array,
        splits=None,
        has_val=lambda data: data.val_share > 0,
        any_channels=True,
        settings=('val_share', 'test_share', 'array_name', 'value_range'),
        dir='the path of an .npy or .npz file of images',
    ),
}


CHOICES['data.name'] = SOURCES
