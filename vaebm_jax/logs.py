"""What a run tells: rows in `metrics.jsonl` for programs, lines and a bar for people."""

import contextlib
import io
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import tqdm

from vaebm_jax import distributed
from vaebm_jax.config import Config
from vaebm_jax.errors import UserError
from vaebm_jax.files import append, write_atomically
from vaebm_jax.methods import METHODS, progress_words, untrained_energy


class MetricsFile:
    """`metrics.jsonl`: one JSON object a logged step, and one, with an `event`, a roll-back."""

    def __init__(self, path: pathlib.Path, start: int, rollbacks: int = 0):
        """Cuts what was written after `start`, so that no step stands twice.

        Of the roll-backs' events the first `rollbacks` stay, wherever they led: a run that goes on
        from before the others comes to them again.
        """
        self.path = path
        lines = path.read_bytes().splitlines() if path.exists() else []
        kept = [line for line in lines if _is_before(line, start, rollbacks)]
        if len(kept) < len(lines):
            write_atomically(path, b''.join(line + b'\n' for line in kept))

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Appends a row. A number that is not finite is written as null, which JSON can hold."""
        self._append({'step': step} | _finite(metrics))

    def roll_back(self, step: int, rollbacks: int, diverged_at: int, metrics: dict) -> None:
        """Notes that the run went back to `step`, for the `rollbacks`-th time, and why."""
        event = {'step': step, 'event': 'rollback', 'rollbacks': rollbacks}
        self._append(event | {'diverged_at': diverged_at} | _finite(metrics))

    def _append(self, row):
        append(self.path, (json.dumps(row) + '\n').encode())


class EventFiles:
    """The metrics as TensorBoard's event files."""

    def __init__(self, folder: pathlib.Path, start: int):
        """Raises a UserError where tensorboardX, which writes them, is not installed."""
        try:
            import tensorboardX
        except ImportError as error:
            raise UserError("--tensorboard needs pip install 'vaebm_jax[tensorboard]'") from error
        self.writer = tensorboardX.SummaryWriter(str(folder), purge_step=start + 1)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


def _finite(metrics):
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _is_before(line, start, rollbacks):
    try:
        row = json.loads(line)
        return row['rollbacks'] <= rollbacks if 'event' in row else row['step'] <= start
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # The half of a line that a killed run left.


class Progress:
    """How far the run is: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, config: Config, start: int):
        """Of a run that is at step `start`."""
        self.config = config
        self.bar = None
        self.began = time.perf_counter()
        self.reached = start
        self.steps, self.seconds = 0, 0.0  # Of training alone, since the last log.

    @contextlib.contextmanager
    def compiling(self, step: int) -> Iterator[None]:
        """A call to `step` that compiles: neither its time nor its steps count."""
        say('compiling the training step ...')
        began = time.perf_counter()
        with self.pause():
            yield
        say(f'compiled in {time.perf_counter() - began:.1f} s')
        self.reached = step
        if self.bar is None and _has_terminal():
            self.bar = tqdm.tqdm(
                total=self.config.num_steps, initial=step, unit='step', dynamic_ncols=True
            )

    def advance(self, step: int) -> None:
        """Moves the bar after every call; between logged steps nothing else is shown."""
        self.steps, self.reached = self.steps + step - self.reached, step
        if self.bar is not None:
            self.bar.update(step - self.bar.n)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Compilations, pictures and checkpoints do not count as training time."""
        self.seconds += time.perf_counter() - self.began
        yield
        self.began = time.perf_counter()

    def log(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Shows a logged step; returns `images_per_second` since the last, if a step was timed."""
        self.seconds += time.perf_counter() - self.began
        self.began = time.perf_counter()
        steps_per_second = self.steps / max(self.seconds, 1e-9)
        self.steps, self.seconds = 0, 0.0
        images_per_second = steps_per_second * self.config.batch_size
        shown = progress_words(metrics, self.config)
        warning = METHODS[self.config.method].warning(step, metrics)
        if self.bar is not None:
            speed = f'{images_per_second:.4g} images/s, ' if steps_per_second else ''
            self.bar.set_postfix_str(speed + shown)
        else:
            if steps_per_second:  # No step was timed where a call that compiled is logged.
                left = (self.config.num_steps - step) / steps_per_second
                shown += f' | {steps_per_second:.3g} steps/s, {images_per_second:.4g} images/s'
                shown += f', {left:.0f} s left'
            say(f'step {step}/{self.config.num_steps}: {shown}')
        if warning:
            say(warning)
        return {'images_per_second': images_per_second} if steps_per_second else {}

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


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
    if _has_terminal():
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


def say_checkpoint(mode: str, step: int, workdir: pathlib.Path, config: Config) -> None:
    """Which checkpoint a mode uses, and a warning where its energy has learned nothing."""
    say(f'{mode}: step {step} of {workdir}')
    if warning := untrained_energy(step, config):
        say(warning)


def _has_terminal():
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
