"""Files that are whole or not there, a power cut included."""

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

# What file systems say that do not sync such a thing: they have an order of their own.
_NO_SYNC = {
    getattr(errno, name)
    for name in ('EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EACCES', 'EPERM', 'EBADF')
}


def at_home(path: str | os.PathLike) -> pathlib.Path:
    """A path whose `~` or `~NAME` is the home directory, as a shell has it.

    Raises:
      UserError: where no such home directory is known.
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
      UserError: for one in a bucket, which has neither the locks nor the renames of a disk.
    """
    if '://' in os.fspath(path):
        raise UserError(
            f'workdir must be a folder on a disk (that all processes share), got '
            f'{os.fspath(path)!r}: a bucket has no locks and no renames; copy the run there later'
        )
    return at_home(path)


@contextlib.contextmanager
def written(path: str | os.PathLike) -> Iterator[None]:
    """Makes a UserError of a full disk, a folder that vanished, or one that is read-only."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}); what was saved before is '
            'untouched'
        ) from error


def sync(path: str | os.PathLike) -> None:
    """Waits until the disk itself has a file, or which files are in a folder."""
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
    """The same of all that is below a folder, and of its place in the one above."""
    for path in [*folder.rglob('*'), folder, folder.parent]:
        sync(path)


def make_folder(folder: str | os.PathLike, parents: bool = True) -> None:
    """Makes a folder where it is missing, and with `parents` those above it."""
    folder = pathlib.Path(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=parents, exist_ok=True)
    for path in missing:
        sync(path.parent)


def check_writable(folder: str | os.PathLike) -> None:
    """Makes a folder where it is missing; raises an OSError where no file can be written to it."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b'.')


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to, aside at first; renamed at the end, so that no one sees half of it.

    The disk has its content before the rename, and the rename when this returns. Its folder is made
    where it is missing, but not the one above: a workdir that vanished is told.
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
    """Writes the whole file or none of it."""
    with whole_file(path) as file:
        file.write(content)


def write_json(path: str | os.PathLike, result: dict) -> None:
    """Writes an object as indented JSON."""
    write_atomically(path, (json.dumps(result, indent=2) + '\n').encode())


def append(path: str | os.PathLike, content: bytes) -> None:
    """Adds to the end of a file, in a folder that there is."""
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
    """The arrays of an `.npz`; where it is not there, or not whole, made and written first."""
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
