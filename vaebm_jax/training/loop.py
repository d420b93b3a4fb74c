"""The training loop: data, compiled calls, metrics, previews, checkpoints."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

from vaebm_jax.config import Config, refuse_other_run, to_json, validate
from vaebm_jax.data.conditions import idle_settings
from vaebm_jax.data.loading import Files, open_images
from vaebm_jax.data.order import batch_indices, stream
from vaebm_jax.methods import METHODS, create_states, rates_at, unused_settings
from vaebm_jax.models.apply import averaged
from vaebm_jax.models.states import States
from vaebm_jax.runtime import distributed, log
from vaebm_jax.runtime.atomic_files import local_folder, make_folder, write_atomically
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.runtime.lock import locked
from vaebm_jax.runtime.signals import Interrupted, noticed
from vaebm_jax.training import checkpoints
from vaebm_jax.training.divergence import Diverged, slowed, sound_values
from vaebm_jax.training.metrics_file import EventFiles, MetricsFile, check_tensorboard
from vaebm_jax.training.parallel import (
    all_devices,
    check_divides,
    compile_step,
    hold_images,
    local_rows,
    out_of_memory_explained,
    place_states,
    split_rows,
)
from vaebm_jax.training.progress import Progress

# From a config to the function that draws a training run's pictures: `draw(path, keys, states)`
# writes one, with keys of z and of the chains' noise, the same at every step, and the states'
# `params`.
Preview = Callable[[Config], Callable[[pathlib.Path, tuple, States], None]]

# From the second call, which does not compile, to the fourth; or the only call.
_PROFILED_CALLS = (1, 3)


def train(
    config: Config,
    workdir: str | os.PathLike,
    profile: bool = False,
    tensorboard: bool = False,
    strict: bool = False,
    preview: Preview | None = None,
) -> States:
    """Trains to `config.num_steps`, from the newest checkpoint in `workdir` if there is one.

    Args:
      config: the experiment.
      workdir: for config.json, metrics.jsonl, samples/ and checkpoints/.
      profile: also write a trace of a few calls to `<workdir>/profile`.
      tensorboard: also write the metrics to `<workdir>/tensorboard`.
      strict: do not resume from an older checkpoint if the newest is damaged.
      preview: makes the function that draws `samples/step_<8 digits>.png`, such as `preview` of a
        row of TASKS; None: no pictures.

    Returns:
      The trained states.

    Raises:
      UserError: for a wrong setting, a missing data set, a workdir with another run or in use by
        one, and a run that keeps diverging.
      Interrupted: after SIGTERM, SIGINT or SIGHUP, when the current step is saved.
    """
    validate(config.freeze())
    distributed.check_alike(to_json(config))
    devices = all_devices()
    check_divides(config, len(devices))
    workdir = local_folder(workdir)
    before = config
    if (workdir / 'config.json').exists():
        before = checkpoints.load_config(workdir)
        refuse_other_run(before, config)
    elif config.init_from:
        checkpoints.refuse_other_start(config)
    log.say(
        f'jax {jax.__version__}, {len(devices)} x {devices[0].device_kind} ({devices[0].platform})'
        + (f' in {jax.process_count()} processes' if jax.process_count() > 1 else '')
    )
    if unused := unused_settings(config):
        log.say(f'not used by {config.method}: {", ".join(unused)}')
    if idle := idle_settings(config):
        log.say(f'not used by condition.kind {config.condition.kind}: {", ".join(idle)}')
    files, images = None, open_images(config.data)
    if not isinstance(images, np.ndarray):
        files = images.listing
        checkpoints.refuse_other_files(workdir, files, config.num_steps)
        images = images.resident()
    else:
        log.say(f'data: {len(images):,} images of {config.data.name}')
    if len(images) < config.batch_size:
        raise UserError(
            f'batch_size must be at most the {len(images)} images of {config.data.name}, '
            f'got {config.batch_size}'
        )
    if METHODS[config.method].warm_start and config.warmup_steps >= config.num_steps:
        log.say(
            f'warning: the energy is not trained: all {config.num_steps} steps are the warm start '
            f'(warmup_steps {config.warmup_steps})'
        )

    if tensorboard:
        check_tensorboard()  # Before anything is written.
    distributed.agreed(lambda: make_workdir(workdir))
    with (
        locked(workdir),
        noticed() as signal_name,
        checkpoints.checkpoint_manager(workdir, config.keep_checkpoints) as manager,
    ):
        start = checkpoints.newest_complete(manager, strict) or 0
        rollbacks = checkpoints.rollbacks_at(manager, start) if start else 0
        if start:
            log.say(f'resume: from step {start} in {workdir}')
        if start >= config.num_steps:
            done = f'{workdir} is at step {start} of {config.num_steps}'
            if start > config.num_steps:
                done = (
                    f'{workdir} has done {start} steps, more than num_steps={config.num_steps}: '
                    'nothing was trained'
                )
            log.say(f'finished: {done}' + (', and no step is left to profile' if profile else ''))
            return checkpoints.restore(manager, start, config)
        if start:
            warn_of_other_rates(start, slowed(before, rollbacks), slowed(config, rollbacks))
        if distributed.is_first():
            write_atomically(workdir / 'config.json', to_json(config).encode())
        rows = open_rows(workdir, start, rollbacks, tensorboard)
        # A run killed in between rolls back to the same checkpoints again, in the same order.
        rolled_back_to = 0
        while True:
            try:
                states = train_from(
                    start,
                    rollbacks,
                    config,
                    images,
                    files,
                    workdir,
                    manager,
                    rows,
                    signal_name,
                    profile,
                    preview,
                )
            except Diverged as divergence:
                rollbacks += 1
                refuse_more_rollbacks(divergence, rollbacks, config)
                newest = manager.latest_step() or 0
                is_at_fault = newest > 0 and newest == rolled_back_to
                if is_at_fault:  # Else the run could not save this step again.
                    manager.delete(newest)
                start = rolled_back_to = manager.latest_step() or 0
                rows = open_rows(workdir, start, rollbacks, tensorboard)
                for file in rows[:1]:
                    file.roll_back(start, rollbacks, divergence.step, divergence.values)
                again = f'again from step {newest}, so its checkpoint is deleted; '
                log.say(
                    f'diverged at step {divergence.step}: {divergence.reason}; '
                    f'{again if is_at_fault else ""}back to step '
                    f'{start} with other noise and rates multiplied by '
                    f'{config.divergence.rate_factor**rollbacks:g} '
                    f'(roll-back {rollbacks} of {config.divergence.max_rollbacks})'
                )
                continue
            log.say(
                f'finished: step {config.num_steps} of {config.num_steps}'
                + (f', pictures in {workdir}/samples' if preview else '')
            )
            return states


def train_from(
    start: int,
    rollbacks: int,
    config: Config,
    images: np.ndarray | Files,
    files: dict | None,
    workdir: pathlib.Path,
    manager: ocp.CheckpointManager,
    rows: Sequence[MetricsFile | EventFiles],
    signal_name: Callable[[], str],
    profile: bool,
    preview: Preview | None,
) -> States:
    """Trains from the checkpoint of step `start` (0: initial states) to `config.num_steps`.

    Raises:
      Diverged: before diverged states are saved.
      Interrupted: after a signal, when the states are saved.
    """
    devices = all_devices()
    key_init, key_order, key_samples, key = run_keys(config, rollbacks)
    states = states_at(start, manager, key_init, slowed(config, rollbacks))
    states = place_states(states, devices)
    method = METHODS[config.method]
    warm_start = method.warm_start or method.step
    steps = {step: compile_step(step, config, devices) for step in (warm_start, method.step)}
    batches = call_images(key_order, images, config, devices, start)
    draw = preview(config) if preview and distributed.is_first() else None
    picture_keys = tuple(jax.random.split(key_samples))
    progress = Progress(config, start)
    earlier, compiled = None, set()
    with contextlib.closing(progress), contextlib.ExitStack() as trace:
        for index, (first, last) in enumerate(calls(config, start)):
            is_only = index == 0 and last == config.num_steps
            if profile and (is_only or index == _PROFILED_CALLS[0]):
                trace.enter_context(profiled(workdir / 'profile'))
            step = warm_start if first < config.warmup_steps else method.step
            is_new = step not in compiled
            compiled.add(step)
            if is_new:
                jax.block_until_ready(earlier)  # Its time is not compile time.
            with progress.compiling(last) if is_new else contextlib.nullcontext():
                args = (key, states, next(batches), last - first)
                with out_of_memory_explained(config, steps[step], args):
                    states, metrics = steps[step](*args)
                    # At most one call is in flight: enough to hide the host's work.
                    if earlier:
                        sound_values(*earlier, config)
                    earlier = last, metrics
                    if is_new:
                        jax.block_until_ready(metrics)
            progress.advance(last)
            if profile and index == _PROFILED_CALLS[1]:
                jax.block_until_ready(metrics)
                trace.close()
            interruption = signal_name()
            is_stopped = bool(interruption) and last < config.num_steps
            is_logged = is_due(last, config.log_every, config)
            is_saved = is_due(last, config.checkpoint_every, config) or is_stopped
            if is_logged or is_saved:
                values = sound_values(last, metrics, config)
            try:
                if is_logged:
                    values |= progress.log(last, values)
                    for file in rows:
                        file.write(last, values)
                if draw and is_due(last, config.sample_every, config):
                    jax.block_until_ready(metrics)
                    with progress.pause():
                        path = workdir / 'samples' / f'step_{last:08d}.png'
                        draw(path, picture_keys, averaged(states))
            except Exception:
                # An error here must not cost a checkpoint; several processes would wait, though.
                is_saved = is_saved or jax.process_count() == 1
                raise
            finally:
                if is_saved:
                    with progress.pause():
                        checkpoints.save(manager, states, rollbacks, files)
            if is_stopped:
                raise Interrupted(
                    f'interrupted: {interruption}; step {last} of {config.num_steps} is saved, '
                    'the same command resumes the run'
                )
    return states


@contextlib.contextmanager
def profiled(folder: pathlib.Path) -> Iterator[None]:
    """Writes a profiler trace of the block, then logs its folder."""
    try:
        with jax.profiler.trace(folder):
            yield
    finally:
        log.say(f'profile: {folder} (TensorBoard, or Perfetto)')


def open_rows(
    workdir: pathlib.Path, start: int, rollbacks: int, tensorboard: bool
) -> list[MetricsFile | EventFiles]:
    """The files of a run's metrics, written by process 0, truncated to the step of the start."""
    if not distributed.is_first():
        return []
    rows = [MetricsFile(workdir / 'metrics.jsonl', start, rollbacks)]
    return [*rows, EventFiles(workdir / 'tensorboard', start)] if tensorboard else rows


def run_keys(config: Config, rollbacks: int) -> chex.PRNGKey:
    """The run's four keys: for parameters, the data's order, pictures, and everything else."""
    keys = jax.random.split(jax.random.key(config.seed, impl=config.generator), 4)
    key = jax.random.fold_in(keys[3], rollbacks) if rollbacks else keys[3]
    return *keys[:3], key


def states_at(
    step: int, manager: ocp.CheckpointManager, key: chex.PRNGKey, config: Config
) -> States:
    """The states of a checkpoint, or the initial states of a run."""
    if step:
        return checkpoints.restore(manager, step, config)
    states = create_states(key, config)
    return checkpoints.start_from(states, config) if config.init_from else states


def warn_of_other_rates(step: int, before: Config, config: Config) -> None:
    """Warns if learning rates jump, because the schedule spans `num_steps`, which has changed."""
    old, new = (
        {name: f'{rate:.3g}' for name, rate in rates_at(step, either).items()}
        for either in (before, config)
    )
    changes = [
        f"the {name}'s learning rate {'rises' if float(new[name]) > float(old[name]) else 'falls'} "
        f'from {old[name]} to {new[name]}'
        for name in old
        if new[name] != old[name]
    ]
    if changes:
        log.say(
            f'warning: at step {step} {" and ".join(changes)}: num_steps was '
            f'{before.num_steps} and is now {config.num_steps} (schedule.name is '
            f'{config.schedule.name})'
        )


def refuse_more_rollbacks(divergence: Diverged, rollbacks: int, config: Config) -> None:
    """Raises a UserError with metrics and advice after `divergence.max_rollbacks`."""
    most = config.divergence.max_rollbacks
    if rollbacks <= most:
        return
    after = f' after {most} roll-backs (divergence.max_rollbacks)' if most else ''
    raise UserError(
        f'the run diverged{after}: at step {divergence.step} {divergence.reason}. A lower '
        'energy.learning_rate or langevin.step_size helps, in a new workdir (init_from loads '
        'the saved parameters)'
    )


def make_workdir(workdir: pathlib.Path) -> None:
    """Makes the folder; raises a UserError if it cannot be written to."""
    try:
        make_folder(workdir)
        (workdir / '.writable').touch()
        (workdir / '.writable').unlink()
    except OSError as error:
        raise UserError(
            f'workdir must be a folder that can be written to, got {str(workdir)!r} '
            f'({error.strerror})'
        ) from error


def is_due(step: int, every: int, config: Config) -> bool:
    """Whether something is due that happens every `every` steps and after the last."""
    return step == config.num_steps or (every > 0 and step % every == 0)


def calls(config: Config, start: int) -> Iterator[tuple[int, int]]:
    """Splits the run into calls `(first, last)`, which end where a log, sample or save is due."""
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
    images: np.ndarray | Files,
    config: Config,
    devices: list[jax.Device],
    start: int,
) -> Iterator[chex.Array]:
    """The images of each call, padded to `steps_per_call` iterations."""
    size = config.batch_size

    def padded(rows):
        rows = np.stack(rows)
        rest = config.steps_per_call - len(rows)
        return np.pad(rows, [(0, rest)] + [(0, 0)] * (rows.ndim - 1))

    if not isinstance(images, np.ndarray):
        rows = local_rows(size, devices)
        batches = stream(images, key, size, rows, start, config.num_steps)
        for first, last in calls(config, start):
            yield split_rows(padded([next(batches) for _ in range(first, last)]), devices)
    else:
        gather = hold_images(images, devices)
        for first, last in calls(config, start):
            steps = range(first, last)
            yield gather(padded([batch_indices(key, step, len(images), size) for step in steps]))
