"""Lines and bars for a person, on stderr."""

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
    """Goes through items worth `size` units each: a bar on a terminal, now and then a line else."""
    with counted(doing, unit, total, seconds) as advance:
        for item in items:
            yield item
            advance(size)


@contextlib.contextmanager
def counted(
    doing: str, unit: str, total: int, seconds: float = 10.0
) -> Iterator[Callable[..., None]]:
    """Shows how far work of `total` units is; yields `advance(count, cached=False)`.

    What was found `cached` took no time, and does not count in the time that is left.
    """
    bar = None
    if has_terminal():
        bar = tqdm.tqdm(total=total, desc=doing, unit=f' {unit}', dynamic_ncols=True)
    began = told = time.perf_counter()
    done = found = 0

    def advance(count, cached=False):
        nonlocal told, done, found
        count = min(count, total - done)
        done, found = done + count, found + count * cached
        now = time.perf_counter()
        if bar is not None:
            bar.initial = found
            bar.update(count)
        elif now - told > seconds and found < done < total:
            rate = (done - found) / (now - began)
            left = (total - done) / rate
            say(f'{doing}: {done}/{total} {unit}, {rate:.4g} a second, {left:.0f} s left')
            told = now

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()


def say(line: str) -> None:
    """One line to a person, clear of a progress bar; of several processes the first speaks.

    A line that cannot be written is lost, and nothing else.
    """
    if distributed.is_first() and sys.stderr:
        with contextlib.suppress(OSError, ValueError):  # A ValueError is a closed file's.
            tqdm.tqdm.write(line, file=sys.stderr)


def has_terminal() -> bool:
    """Whether a bar can be drawn, by this process."""
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
    """Lets a process go on where its stderr is closed, on a full disk, or a terminal that is gone.

    All that Python writes there, from a bar to a traceback, is lost then, without an error.
    """
    for name in ('stdin', 'stdout', 'stderr'):  # Their numbers would be those of files of ours.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'r+'))
    with contextlib.suppress(OSError, ValueError):  # No file: it is kept in memory.
        raw = io.BufferedWriter(_Lossy(sys.stderr.fileno(), 'w', closefd=False))
        sys.stderr = io.TextIOWrapper(
            raw, sys.stderr.encoding, 'backslashreplace', line_buffering=True
        )
