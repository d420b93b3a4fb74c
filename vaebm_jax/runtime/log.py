"""Log lines and progress bars, on stderr."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import tqdm

from vaebm_jax.runtime import distributed


def tracked(
    items: Iterable, doing: str, unit: str, total: int, size: int = 1, seconds: float = 10.0
) -> Iterator:
    """Yields items of `size` units each, with progress: a bar on a terminal, else lines."""
    with counted(doing, unit, total, seconds) as advance:
        for item in items:
            yield item
            advance(size)


@contextlib.contextmanager
def counted(
    doing: str, unit: str, total: int, seconds: float = 10.0
) -> Iterator[Callable[..., None]]:
    """Shows the progress of `total` units of work; yields `advance(count, cached=False)`.

    Units that were `cached` took no time, and do not count in the estimate of the time left.
    """
    bar = None
    if has_terminal():
        bar = tqdm.tqdm(total=total, desc=doing, unit=f' {unit}', dynamic_ncols=True)
    began = logged = time.perf_counter()
    done = found = 0

    def advance(count, cached=False):
        nonlocal logged, done, found
        count = min(count, total - done)
        done, found = done + count, found + count * cached
        now = time.perf_counter()
        if bar is not None:
            bar.initial = found
            bar.update(count)
        elif now - logged > seconds and found < done < total:
            rate = (done - found) / (now - began)
            left = (total - done) / rate
            say(f'{doing}: {done}/{total} {unit}, {rate:.4g} a second, {left:.0f} s left')
            logged = now

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()


def say(line: str) -> None:
    """Logs one line, above a progress bar; with several processes only process 0 logs.

    A line that cannot be written is dropped without an error.
    """
    if distributed.is_first() and sys.stderr:
        with contextlib.suppress(OSError, ValueError):  # A ValueError is a closed file's.
            tqdm.tqdm.write(line, file=sys.stderr)


def has_terminal() -> bool:
    """Whether this process can draw a progress bar."""
    with contextlib.suppress(ValueError, AttributeError):  # It is closed, or None.
        return distributed.is_first() and sys.stderr.isatty()
    return False


class _Lossy(io.FileIO):
    def write(self, content):
        try:
            return super().write(content) or len(content)
        except OSError:
            return len(content)


def lose_what_cannot_be_written() -> None:
    """Lets a process continue if its stderr is closed, on a full disk, or on a closed terminal.

    Whatever Python writes there, from a bar to a traceback, is then dropped without an error.
    """
    for name in ('stdin', 'stdout', 'stderr'):  # Else our files would get their descriptors.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'r+'))
    with contextlib.suppress(OSError, ValueError):  # Not a file: it is in memory.
        raw = io.BufferedWriter(_Lossy(sys.stderr.fileno(), 'w', closefd=False))
        sys.stderr = io.TextIOWrapper(
            raw, sys.stderr.encoding, 'backslashreplace', line_buffering=True
        )
