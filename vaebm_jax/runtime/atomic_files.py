"""Files that are written completely or not at all, even at a power cut."""

import contextlib
import errno
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from vaebm_jax.runtime.errors import UserError

# Errors of file systems that do not support fsync here; their order of writes cannot be controlled.
_NO_SYNC = {
    getattr(errno, name)
    for name in ('EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EACCES', 'EPERM', 'EBADF')
}


def at_home(path: str | os.PathLike) -> pathlib.Path:
    """Expands `~` or `~NAME` at the beginning of a path to the home directory, as a shell does.

    Raises:
      UserError: if there is no such home directory.
    """
    expanded = os.path.expanduser(path)
    if os.fspath(expanded).startswith('~'):
        raise UserError(
            f'a path that begins with ~ is in a home directory, and there is none for {path}; '
            f'a file of that name here is ./{path}'
        )
    return pathlib.Path(expanded)


def local_folder(path: str | os.PathLike) -> pathlib.Path:
    """The path of a workdir.

    Raises:
      UserError: for a bucket, which has no locks and no renames.
    """
    if '://' in os.fspath(path):
        raise UserError(
            f'workdir must be a folder on a disk (that all processes share), got '
            f'{os.fspath(path)!r}: a bucket has no locks and no renames; copy the run there later'
        )
    return at_home(path)


@contextlib.contextmanager
def written(path: str | os.PathLike) -> Iterator[None]:
    """Raises a UserError for a full disk, a folder that vanished, or one that is read-only."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}); what was saved before is '
            'untouched'
        ) from error


def sync(path: str | os.PathLike) -> None:
    """Flushes a file, or the list of files of a folder, to the disk."""
    with contextlib.suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            _sync(handle)
        finally:
            os.close(handle)


def _sync(handle):
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_tree(folder: pathlib.Path) -> None:
    """Flushes everything below a folder, and its entry in the folder above."""
    for path in [*folder.rglob('*'), folder, folder.parent]:
        sync(path)


def make_folder(folder: str | os.PathLike, parents: bool = True) -> None:
    """Makes a folder if it is missing, and with `parents` those above it."""
    folder = pathlib.Path(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=parents, exist_ok=True)
    for path in missing:
        sync(path.parent)


def check_writable(folder: str | os.PathLike) -> None:
    """Makes a folder if it is missing; raises an OSError if no file can be written to it."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b'.')


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to, under a temporary name; renamed at the end, so no one sees a part of it.

    The content is on the disk before the rename, and the rename when this returns. Its folder is
    made if it is missing, but not the one above: a workdir that vanished is an error.
    """
    path = pathlib.Path(path)
    with written(path):
        make_folder(path.parent, parents=False)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
        try:
            with os.fdopen(handle, 'wb') as file:
                yield file
                file.flush()
                os.chmod(aside, 0o644)
                _sync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            pathlib.Path(aside).unlink(missing_ok=True)
            raise
        sync(path.parent)


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Writes the complete file or nothing."""
    with whole_file(path) as file:
        file.write(content)


def write_json(path: str | os.PathLike, result: dict) -> None:
    """Writes an object as indented JSON."""
    write_atomically(path, (json.dumps(result, indent=2) + '\n').encode())


def append(path: str | os.PathLike, content: bytes) -> None:
    """Appends to a file, in an existing folder."""
    path = pathlib.Path(path)
    is_new = not path.exists()
    with written(path):
        with open(path, 'ab') as file:
            file.write(content)
            file.flush()
            _sync(file.fileno())
        if is_new:
            sync(path.parent)


def kept(
    path: str | os.PathLike, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`; if it is missing or incomplete, they are made and written first."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        arrays = make()
    with written(path):
        make_folder(pathlib.Path(path).parent)
    with whole_file(path) as file:
        np.savez(file, **arrays)
    return arrays
