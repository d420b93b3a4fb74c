"""The training loop: data, compiled calls, metrics, pictures, checkpoints."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator

import chex
import jax
import numpy as np
import tqdm

from vaebm_jax import checkpoints, data, pictures
from vaebm_jax.base import States
from vaebm_jax.config import Config, refuse_other_run, to_json, validate
from vaebm_jax.errors import UserError
from vaebm_jax.parallel import check_divides, compile_step, hold_images, place_states, split_batch
from vaebm_jax.sampling import generate
from vaebm_jax.train_state import create_states
from vaebm_jax.train_step import train_step

_STEPS = {'vaebm': train_step}
_PROFILED_CALLS = (1, 3)  # From the second, which no longer compiles, to the fourth.


def train(config: Config, workdir: str | os.PathLike, profile: bool = False) -> States:
    """Trains to `config.num_steps`, from the newest checkpoint in `workdir` if there is one.

    Args:
      config: the experiment.
      workdir: for config.json, metrics.jsonl, samples/ and checkpoints/.
      profile: also write a trace of a few calls to `<workdir>/profile`.

    Returns:
      The trained states.

    Raises:
      UserError: for a wrong setting, a missing data set, or a workdir with another run.
    """
    validate(config)
    devices = jax.devices()
    check_divides(config, len(devices))
    workdir = pathlib.Path(workdir)
    if (workdir / 'config.json').exists():
        refuse_other_run(checkpoints.load_config(workdir), config)
    say(f'jax {jax.__version__}, {len(devices)} x {devices[0].device_kind} ({devices[0].platform})')
    images = data.load_images(config.data)
    if len(images) < config.batch_size:
        raise UserError(
            f'batch_size must be at most the {len(images)} images of {config.data.name}, '
            f'got {config.batch_size}'
        )
    say(f'data: {len(images):,} images of {config.data.name}')

    make_workdir(workdir)
    key_init, key_order, key_samples, key = jax.random.split(jax.random.key(config.seed), 4)
    with checkpoints.checkpoint_manager(workdir, config.keep_checkpoints) as manager:
        start = manager.latest_step() or 0
        if start:
            states = checkpoints.restore(manager, start, config)
            say(f'resume: from step {start} in {workdir}')
        else:
            states = create_states(key_init, config)
            if config.init_from:
                states = checkpoints.start_from(states, config.init_from)
        if start >= config.num_steps:
            say(f'finished: {workdir} stands at step {start} of {config.num_steps}')
            return states
        checkpoints.write_atomically(workdir / 'config.json', to_json(config).encode())
        metrics_file = MetricsFile(workdir / 'metrics.jsonl', start)

        states = place_states(states, devices)
        call = compile_step(_STEPS[config.method], config, devices)
        batches = call_images(key_order, images, config, devices, start)
        progress = Progress(config, start)
        earlier = None
        for index, (first, last) in enumerate(calls(config, start)):
            if profile and index == _PROFILED_CALLS[0]:
                jax.profiler.start_trace(workdir / 'profile')
            states, metrics = call(key, states, next(batches), last - first)
            # At most one call is in flight: enough to hide the host, and no queue to lose.
            jax.block_until_ready(earlier)
            earlier = metrics
            if index == 0:
                jax.block_until_ready(metrics)
                progress.compiled(last)
            if profile and index == _PROFILED_CALLS[1]:
                jax.block_until_ready(metrics)
                jax.profiler.stop_trace()
                say(f'profile: {workdir / "profile"} (TensorBoard, or Perfetto)')
            if is_due(last, config.log_every, config):
                values = {name: float(value) for name, value in metrics.items()}
                values['images_per_second'] = progress.log(last, values)
                metrics_file.write(last, values)
            if is_due(last, config.sample_every, config):
                jax.block_until_ready(metrics)
                with progress.pause():
                    write_samples(key_samples, states, config, workdir, last)
            if is_due(last, config.checkpoint_every, config):
                jax.block_until_ready(metrics)
                with progress.pause():
                    checkpoints.save(manager, states)
        progress.close()
    say(f'finished: step {config.num_steps} of {config.num_steps}, pictures in {workdir}/samples')
    return states


def make_workdir(workdir: pathlib.Path) -> None:
    """Makes the folder, and raises a UserError where nothing can be written to it."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / '.writable').touch()
        (workdir / '.writable').unlink()
    except OSError as error:
        raise UserError(
            f'workdir must be a folder that can be written to, got {str(workdir)!r} '
            f'({error.strerror})'
        ) from error


def is_due(step: int, every: int, config: Config) -> bool:
    """Whether something that happens `every` so many steps, and after the last, happens now."""
    return step == config.num_steps or (every > 0 and step % every == 0)


def calls(config: Config, start: int) -> Iterator[tuple[int, int]]:
    """Cuts the run into calls `(first, last)` that end where a log, sample or checkpoint is due."""
    periods = [
        period
        for period in (config.log_every, config.sample_every, config.checkpoint_every)
        if period
    ]
    while start < config.num_steps:
        stops = [start + config.steps_per_call, config.num_steps]
        stops += [(start // period + 1) * period for period in periods]
        yield start, min(stops)
        start = min(stops)


def call_images(
    key: chex.PRNGKey,
    images: np.ndarray | data.Folder,
    config: Config,
    devices: list[jax.Device],
    start: int,
) -> Iterator[chex.Array]:
    """The images of each call, always `steps_per_call` iterations long: what is over is unused."""
    size = config.batch_size

    def padded(rows):
        rows = np.stack(rows)
        rest = config.steps_per_call - len(rows)
        return np.pad(rows, [(0, rest)] + [(0, 0)] * (rows.ndim - 1))

    if isinstance(images, data.Folder):
        stream = data.stream(images, key, size, slice(None), start, config.num_steps)
        for first, last in calls(config, start):
            rows = padded([next(stream) for _ in range(first, last)])
            yield split_batch(rows, len(devices))
    else:
        gather = hold_images(images, devices)
        for first, last in calls(config, start):
            steps = range(first, last)
            yield gather(
                padded([data.batch_indices(key, step, len(images), size) for step in steps])
            )


def write_samples(
    key: chex.PRNGKey, states: States, config: Config, workdir: pathlib.Path, step: int
) -> None:
    """Draws the same z at every step: what the decoder guesses, and what the chain makes of it."""
    ancestral, refined = generate(key, states, config, num_samples=64)
    pictures.side_by_side(
        workdir / 'samples' / f'step_{step:08d}.png',
        {
            'ancestral samples (decoder)': ancestral,
            f'after {config.langevin.num_steps} Langevin steps': refined,
        },
    )


def collapse_warning(step: int, metrics: dict[str, float]) -> str:
    """In words, if the samples are becoming one picture; '' if not.

    A flat energy, or one far too fast for the VAE, does this, and the VAE, which sees the samples
    alone, cannot recover. The first 200 steps are spared: there all runs look so.
    """
    if step < 200 or (metrics['rate'] >= 0.1 and metrics['spread'] >= 0.1):
        return ''
    return (
        f'warning: the samples look like one picture (rate {metrics["rate"]:.2g} nats, spread '
        f"{metrics['spread']:.2g} of the data's). Usual causes: a flat energy (raise "
        'energy.learning_rate) or one too fast for the VAE (lower it, or vae.kl_weight)'
    )


class MetricsFile:
    """`metrics.jsonl`: one JSON object a logged step."""

    def __init__(self, path: pathlib.Path, start: int):
        """Cuts what an interrupted run wrote after `start`, so that no step stands twice."""
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= start]
        if len(kept) < len(lines):
            checkpoints.write_atomically(path, ''.join(line + '\n' for line in kept).encode())

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Appends a row. A number that is not finite is written as null, which JSON can hold."""
        row = {'step': step}
        row |= {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        with self.path.open('a') as file:
            file.write(json.dumps(row) + '\n')


def _step_of(line: str) -> float:
    try:
        return json.loads(line)['step']
    except (ValueError, KeyError, TypeError):
        return math.inf  # The half of a line that a killed run left.


@dataclasses.dataclass
class Progress:
    """How far the run is: a bar on a terminal, plain lines elsewhere."""

    config: Config
    start: int

    def __post_init__(self):
        say('compiling the training step ...')
        self.began = time.perf_counter()
        self.bar = None
        self.seconds = 0.0  # Of training alone, since the last log.
        self.logged = self.start

    def compiled(self, step: int) -> None:
        """Starts the clock: the first call, which compiles, does not count."""
        say(f'compiled in {time.perf_counter() - self.began:.1f} s')
        self.began, self.logged = time.perf_counter(), step
        if sys.stderr.isatty():
            self.bar = tqdm.tqdm(
                total=self.config.num_steps, initial=step, unit='step', dynamic_ncols=True
            )

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Pictures and checkpoints do not count as training time."""
        self.seconds += time.perf_counter() - self.began
        yield
        self.began = time.perf_counter()

    def log(self, step: int, metrics: dict[str, float]) -> float:
        """Shows a logged step; returns images per second since the last."""
        self.seconds += time.perf_counter() - self.began
        self.began = time.perf_counter()
        steps_per_second = (step - self.logged) / max(self.seconds, 1e-9)
        self.seconds, self.logged = 0.0, step
        images_per_second = steps_per_second * self.config.batch_size
        shown = (
            f'energy of data {metrics["energy_data"]:.4g}, of samples '
            f'{metrics["energy_samples"]:.4g}, rate {metrics["rate"]:.3g}, '
            f'distortion {metrics["distortion"]:.3g}'
        )
        warning = collapse_warning(step, metrics)
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            self.bar.set_postfix_str(shown)
        else:
            left = (self.config.num_steps - step) / max(steps_per_second, 1e-9)
            say(
                f'step {step}/{self.config.num_steps}: {shown} | {steps_per_second:.3g} steps/s, '
                f'{images_per_second:.4g} images/s, {left:.0f} s left'
            )
        if warning:
            say(warning)
        return images_per_second

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def say(line: str) -> None:
    """One line to a person, clear of a progress bar."""
    tqdm.tqdm.write(line, file=sys.stderr)
