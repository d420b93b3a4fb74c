"""A run's metrics: rows in `metrics.jsonl`, and TensorBoard's event files."""

import json
import math
import pathlib

from vaebm_jax.runtime.atomic_files import append, write_atomically
from vaebm_jax.runtime.errors import UserError


class MetricsFile:
    """`metrics.jsonl`: one JSON object per logged step, and one with an `event` per roll-back."""

    def __init__(self, path: pathlib.Path, start: int, rollbacks: int = 0):
        """Removes rows after step `start`, so that no step appears twice.

        The first `rollbacks` events of roll-backs are kept: a run resumed from before the others
        repeats them.
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
        """Writes that the run rolled back to `step`, for the `rollbacks`-th time, and why."""
        event = {'step': step, 'event': 'rollback', 'rollbacks': rollbacks}
        self._append(event | {'diverged_at': diverged_at} | _finite(metrics))

    def _append(self, row):
        append(self.path, (json.dumps(row) + '\n').encode())


def check_tensorboard() -> None:
    """Raises a UserError if tensorboardX, which writes event files, is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise UserError("--tensorboard needs pip install 'vaebm_jax[tensorboard]'") from error


class EventFiles:
    """The metrics as TensorBoard's event files."""

    def __init__(self, folder: pathlib.Path, start: int):
        """Those of a run at step `start`; later rows are dropped."""
        import tensorboardX

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
        return False  # A partial line of a killed run.
