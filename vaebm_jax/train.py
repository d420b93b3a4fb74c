"""The training loop: data, compiled calls, metrics, pictures, checkpoints."""

import os
import pathlib
from collections.abc import Iterator

import chex
import jax
import numpy as np

from vaebm_jax import checkpoints, data, logs, pictures
from vaebm_jax.base import States
from vaebm_jax.baselines import STEPS
from vaebm_jax.condition import fixed_condition
from vaebm_jax.config import Config, refuse_other_run, to_json, validate
from vaebm_jax.errors import UserError
from vaebm_jax.files import write_atomically
from vaebm_jax.interruption import Interrupted, noticed
from vaebm_jax.parallel import (
    check_divides,
    compile_step,
    hold_images,
    out_of_memory_explained,
    place_states,
    split_batch,
)
from vaebm_jax.recovery import draw_rows
from vaebm_jax.sampling import generate, recover
from vaebm_jax.train_state import create_states
from vaebm_jax.train_step import Metrics

_MUST_BE_FINITE = ('energy_data', 'energy_samples', 'distortion')
_PROFILED_CALLS = (1, 3)  # From the second, which no longer compiles, to the fourth.


def train(
    config: Config,
    workdir: str | os.PathLike,
    profile: bool = False,
    tensorboard: bool = False,
    strict: bool = False,
) -> States:
    """Trains to `config.num_steps`, from the newest checkpoint in `workdir` if there is one.

    Args:
      config: the experiment.
      workdir: for config.json, metrics.jsonl, samples/ and checkpoints/.
      profile: also write a trace of a few calls to `<workdir>/profile`.
      tensorboard: also write the metrics to `<workdir>/tensorboard`.
      strict: do not go on from an older checkpoint where the newest is damaged.

    Returns:
      The trained states.

    Raises:
      UserError: for a wrong setting, a missing data set, or a workdir with another run.
      Interrupted: after SIGTERM or SIGINT, once the step that was reached is saved.
    """
    validate(config)
    devices = jax.devices()
    check_divides(config, len(devices))
    workdir = pathlib.Path(workdir)
    if (workdir / 'config.json').exists():
        refuse_other_run(checkpoints.load_config(workdir), config)
    logs.say(
        f'jax {jax.__version__}, {len(devices)} x {devices[0].device_kind} ({devices[0].platform})'
    )
    images = data.load_images(config.data)
    if len(images) < config.batch_size:
        raise UserError(
            f'batch_size must be at most the {len(images)} images of {config.data.name}, '
            f'got {config.batch_size}'
        )
    logs.say(f'data: {len(images):,} images of {config.data.name}')

    make_workdir(workdir)
    key = jax.random.key(config.seed, impl=config.generator)
    key_init, key_order, key_samples, key = jax.random.split(key, 4)
    with (
        noticed() as signal_name,
        checkpoints.checkpoint_manager(workdir, config.keep_checkpoints) as manager,
    ):
        start = checkpoints.newest_whole(manager, strict) or 0
        if start:
            states = checkpoints.restore(manager, start, config)
            logs.say(f'resume: from step {start} in {workdir}')
        else:
            states = create_states(key_init, config)
            if config.init_from:
                states = checkpoints.start_from(states, config.init_from)
        if start >= config.num_steps:
            logs.say(f'finished: {workdir} stands at step {start} of {config.num_steps}')
            return states
        write_atomically(workdir / 'config.json', to_json(config).encode())
        rows = [logs.MetricsFile(workdir / 'metrics.jsonl', start)]
        if tensorboard:
            rows.append(logs.EventFiles(workdir / 'tensorboard', start))

        states = place_states(states, devices)
        methods = {
            method: compile_step(STEPS[method], config, devices)
            for method in ('vae', config.method)
        }
        batches = call_images(key_order, images, config, devices, start)
        progress = logs.Progress(config)
        earlier, is_traced = None, False
        for index, (first, last) in enumerate(calls(config, start)):
            if profile and index == _PROFILED_CALLS[0]:
                jax.profiler.start_trace(workdir / 'profile')
                is_traced = True
            call = methods['vae' if first < config.warmup_steps else config.method]
            args = (key, states, next(batches), last - first)
            with out_of_memory_explained(config, call, args):
                states, metrics = call(*args)
                # At most one call is in flight: enough to hide the host, and no queue to lose.
                jax.block_until_ready(earlier)
                earlier = metrics
                if index == 0:
                    jax.block_until_ready(metrics)
                    progress.compiled(last)
            progress.advance(last)
            if is_traced and (index == _PROFILED_CALLS[1] or last == config.num_steps):
                jax.block_until_ready(metrics)
                jax.profiler.stop_trace()
                is_traced = False
                logs.say(f'profile: {workdir / "profile"} (TensorBoard, or Perfetto)')
            is_stopped = bool(signal_name()) and last < config.num_steps
            is_logged = is_due(last, config.log_every, config)
            is_saved = is_due(last, config.checkpoint_every, config) or is_stopped
            if is_logged:
                values = {name: float(value) for name, value in metrics.items()}
                values['images_per_second'] = progress.log(last, values)
                for file in rows:
                    file.write(last, values)
            if is_logged or is_saved:
                stop_if_diverged(last, metrics, manager.latest_step())
            if is_due(last, config.sample_every, config):
                jax.block_until_ready(metrics)
                with progress.pause():
                    write_samples(key_samples, states, config, workdir, last)
            if is_saved:
                with progress.pause():
                    checkpoints.save(manager, states)
            if is_stopped:
                progress.close()
                raise Interrupted(
                    f'interrupted: {signal_name()}; step {last} of {config.num_steps} is saved, '
                    'the same command goes on from there'
                )
        progress.close()
    logs.say(
        f'finished: step {config.num_steps} of {config.num_steps}, pictures in {workdir}/samples'
    )
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


def stop_if_diverged(step: int, metrics: Metrics, checkpoint: int | None) -> None:
    """Raises a UserError once the energies are not finite, before such states are saved."""
    if all(np.isfinite(float(value)) for name, value in metrics.items() if name in _MUST_BE_FINITE):
        return
    what = 'the energies are' if 'energy_data' in metrics else 'the distortion is'
    raise UserError(
        f'the run diverged: at step {step} {what} not finite. '
        + (f'Step {checkpoint} is saved. ' if checkpoint else '')
        + 'A lower energy.learning_rate or langevin.step_size helps, in a new workdir (init_from '
        'takes the saved parameters along)'
    )


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
        stops += [config.warmup_steps] if start < config.warmup_steps else []
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
    if config.condition.kind != 'none':
        truth = data.as_pixels(data.first_images(config.data, data.held_out(config.data), 8))
        condition = fixed_condition(truth, config.condition)
        drawn = recover(key, states, config, condition, 4)
        draw_rows(workdir / 'samples' / f'step_{step:08d}.png', condition, *drawn, truth)
        return
    ancestral, refined = generate(key, states, config, num_samples=64)
    pictures.side_by_side(
        workdir / 'samples' / f'step_{step:08d}.png',
        {
            'ancestral samples (decoder)': ancestral,
            f'after {config.langevin.num_steps} Langevin steps': refined,
        },
    )
