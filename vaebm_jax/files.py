"""Files that are whole or not there."""

import contextlib
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to, aside at first; renamed at the end, so that no one sees half of it."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            yield file
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Writes the whole file or none of it."""
    with whole_file(path) as file:
        file.write(content)


def kept(
    path: str | os.PathLike, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`; where it is not there, or not whole, made and written first."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        arrays = make()
    with whole_file(path) as file:
        np.savez(file, **arrays)
    return arrays
