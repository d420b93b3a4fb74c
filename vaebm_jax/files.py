"""Files that are whole or not there."""

import os
import pathlib
import tempfile


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file aside and renames it, so that no one ever sees half of it."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(content)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise
