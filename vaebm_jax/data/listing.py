"""Which files of a folder are its images, and which of its folders are its splits: one rule."""

import collections
import functools
import os
import pathlib

from PIL import Image

from vaebm_jax.runtime.errors import UserError

# Files and folders of file managers, file servers and operating systems, in lower case.
_SYSTEM = (
    '#recycle',
    '$recycle.bin',
    '@eadir',
    '@recycle',
    '__macosx',
    'lost+found',
    'recycler',
    'system volume information',
    'thumbs.db',
)
# Pillow opens these, but they are films, drawings to be rendered, or tables of numbers.
_NO_STILL_PICTURES = ('BUFR', 'EPS', 'FLI', 'GRIB', 'HDF5', 'MPEG', 'PDF', 'WMF')
_SPLIT_NAMES = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation'),
    'test': ('test', 'testing'),
}


@functools.lru_cache(maxsize=1)
def image_suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of the still pictures that the installed Pillow reads."""
    formats = Image.registered_extensions()
    return frozenset(
        suffix
        for suffix, name in formats.items()
        if name in Image.OPEN and name not in _NO_STILL_PICTURES
    )


def image_files(
    root: pathlib.Path, left_out_folders: tuple[pathlib.Path, ...] = ()
) -> tuple[list[pathlib.Path], collections.Counter]:
    """The image files below a folder, sorted, and how many others there are.

    A file is an image by its suffix. Left out are hidden names (that begin with a dot), system
    files, and everything below such folders. Links are followed, to folders too; a file that
    several paths lead to is counted once, by a path without links if there is one.

    Args:
      root: the folder.
      left_out_folders: folders below it that are skipped.

    Returns:
      The files, and the number of others by reason and suffix: `{(reason, '.txt'): 2}`.
    """
    suffixes = image_suffixes()
    found, left_out, entered = {}, collections.Counter(), set()
    tops = [str(root)]  # Linked folders come after everything without a link.
    skipped = set(map(str, left_out_folders))

    def cannot_open(error):
        left_out['in folders that cannot be opened', ''] += 1

    for top in tops:
        hidden = set()
        for place, folders, files in os.walk(top, onerror=cannot_open):
            real = os.path.realpath(place)
            is_hidden = place in hidden
            if place in skipped or (real in entered and not is_hidden):
                folders.clear()
                continue
            if not is_hidden:  # A link may still lead here under another name.
                entered.add(real)
            for name in folders:
                path = os.path.join(place, name)
                if is_hidden or _is_hidden(name):
                    hidden.add(path)
                elif os.path.islink(path) and not _is_above(path, root):
                    tops.append(path)
            for name in files:
                path = os.path.join(place, name)
                suffix = os.path.splitext(name)[1].lower()
                is_link = os.path.islink(path)
                file = os.path.realpath(path) if is_link else os.path.join(real, name)
                if is_hidden or _is_hidden(name):
                    left_out['hidden or system', suffix] += 1
                elif suffix not in suffixes:
                    left_out['not pictures', suffix] += 1
                elif not os.path.isfile(path):
                    left_out['broken links or not files', suffix] += 1
                elif file in found and (is_link or not os.path.islink(found[file])):
                    left_out['links to what is counted', suffix] += 1
                else:
                    if file in found:
                        left_out['links to what is counted', suffix] += 1
                    found[file] = path
    return sorted(map(pathlib.Path, found.values())), left_out


def _is_above(path, root):
    """Whether a link leads to the folder itself or to one that contains it: a cycle."""
    return pathlib.Path(os.path.realpath(root)).is_relative_to(os.path.realpath(path))


def _is_hidden(name):
    return name.startswith('.') or name.lower() in _SYSTEM


def split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folders of the splits: `{'train': root / 'train', ...}`; empty if there are none.

    A folder `train` makes its parent one with splits. Train, training and the like (in any case;
    valid, validation; testing) are accepted if a split's usual name is missing, and without a
    folder `train` only if there are no other folders beside, which could be classes.

    Raises:
      UserError: if two folders could be the same split.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not _is_hidden(path.name))
    splits = {}
    for split, names in _SPLIT_NAMES.items():
        alike = [path for path in folders if path.name.lower() in names]
        exact = [path for path in alike if path.name == split]
        splits |= {split: exact or alike} if alike else {}
    if 'train' not in splits:
        return {}
    has_others = len(folders) > sum(path.name.lower() in _ALL_NAMES for path in folders)
    if has_others and splits['train'][0].name != 'train':
        return {}
    for split, alike in splits.items():
        if len(alike) > 1:
            names = ' and '.join(f'{path.name}/' for path in alike)
            raise UserError(f'data.dir must have one folder for {split}, got {names} in {root}')
    return {split: folder for split, (folder,) in splits.items()}


_ALL_NAMES = {name for names in _SPLIT_NAMES.values() for name in names}


def describe(
    root: pathlib.Path, splits: dict[str, pathlib.Path], left_out: collections.Counter
) -> str:
    """Which folders are which splits, and how many files were left out, by reason and suffix."""
    parts = []
    others = [
        f'{folder.name}/ for {split}' for split, folder in splits.items() if folder.name != split
    ]
    if others:
        parts.append(f'took {", ".join(others)}')
    if splits:
        beside = image_files(root, tuple(splits.values()))[0]
        left_out = left_out + collections.Counter(
            ('beside the splits', path.suffix.lower()) for path in beside
        )
    else:
        names = [path.name for path in sorted(root.iterdir()) if path.is_dir()]
        which = ', '.join(f'{name}/' for name in names if name.lower() in _ALL_NAMES)
        if which:
            parts.append(f'treated {which} as ordinary images: there is no folder train/')
    if left_out:
        parts.append(f'left out {left_out.total():,} files: {_by_reason(left_out)}')
    return '; '.join(parts)


def _by_reason(left_out):
    reasons = collections.defaultdict(collections.Counter)
    for (reason, suffix), count in left_out.items():
        reasons[reason][suffix or 'no suffix'] += count
    return ', '.join(
        f'{counts.total():,} {reason} ('
        + ', '.join(f'{suffix} {count:,}' for suffix, count in counts.most_common(5))
        + (', ...)' if len(counts) > 5 else ')')
        for reason, counts in sorted(reasons.items())
    )
