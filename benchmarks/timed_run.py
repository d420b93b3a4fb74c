"""Trains a config for so many minutes, and scores what it draws after each quarter of them.

    python benchmarks/timed_run.py --config=configs/cifar10.py:gpu --workdir=runs/cifar10 \
        --minutes=7 --inception_weights=inception.npz

How many steps fit is measured first, by a short run in `<workdir>/probe`; the config's schedule
then ends with them. The minutes hold that and all compilation, but not the scoring. A run that is
slower than it promised is stopped at its time, and what it saved is scored. Beside the files of any
run the workdir gets `evaluation_<step>.json` for each quarter.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import time

import numpy as np
import program
from absl import flags
from ml_collections import config_flags

from vaebm_jax.evaluation.scores import evaluate
from vaebm_jax.runtime.atomic_files import write_json
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.runtime.signals import Interrupted
from vaebm_jax.tasks import task_of
from vaebm_jax.training.checkpoints import opened
from vaebm_jax.training.loop import train

START = time.monotonic()
SPARE_SECONDS = 5  # For the last checkpoint.

_CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'A new folder.', required=True)
_MINUTES = flags.DEFINE_float('minutes', None, 'Of training.', lower_bound=0.0, required=True)
_PROBE_CALLS = flags.DEFINE_integer(
    'probe_calls', 20, 'Compiled calls that the short run times.', lower_bound=2
)
_NUM_SAMPLES = flags.DEFINE_integer('num_samples', 10_000, 'To score at the end.', lower_bound=2)
_QUARTER_SAMPLES = flags.DEFINE_integer(
    'quarter_samples', 5_000, 'To score at the quarters before; 0: none.', lower_bound=0
)
_INCEPTION_WEIGHTS = flags.DEFINE_string('inception_weights', None, 'As in --mode=evaluate.')


def main(argv):
    del argv
    workdir = pathlib.Path(_WORKDIR.value)
    config = _CONFIG.value
    compile_seconds, seconds = speed_of(config, workdir / 'probe')
    left = 60 * _MINUTES.value - (time.monotonic() - START) - SPARE_SECONDS - compile_seconds
    quarter = int(left / seconds / 4 / config.steps_per_call) * config.steps_per_call
    if quarter < config.steps_per_call:
        raise UserError(f'minutes must leave time for some steps of {seconds:.3g} s')
    say(f'{1e3 * seconds:.4g} ms a step: {4 * quarter:,} steps in the {left:.0f} s that are left')
    config = dataclasses.replace(
        config,
        num_steps=4 * quarter,
        sample_every=quarter,
        checkpoint_every=quarter,
        keep_checkpoints=5,
    )
    with contextlib.suppress(Interrupted), stopped_after(left + compile_seconds):
        train(config, workdir, preview=task_of(config).preview)
    say('trained')
    with opened(workdir) as (_, steps):
        steps = sorted(steps, reverse=True)
    last = score(config, workdir, steps[0], _NUM_SAMPLES.value)
    if _QUARTER_SAMPLES.value:
        for step in steps[1:]:
            score(config, workdir, step, _QUARTER_SAMPLES.value)
        write_json(workdir / 'evaluation.json', last)  # Each evaluation wrote its own there.


def say(line):
    print(f'{time.monotonic() - START:6.1f} s: {line}', flush=True)


def speed_of(config, folder):
    """Seconds until a run of its own has compiled, and seconds a step from then on."""
    steps = config.steps_per_call
    short = dataclasses.replace(
        config,
        num_steps=_PROBE_CALLS.value * steps + config.warmup_steps,
        log_every=steps,
        sample_every=0,
        checkpoint_every=0,
    )
    start = time.monotonic()
    train(short, folder)
    total = time.monotonic() - start
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    speeds = [row['images_per_second'] for row in rows if 'images_per_second' in row]
    seconds = config.batch_size / np.median(speeds)
    return max(0.0, total - short.num_steps * seconds), seconds


@contextlib.contextmanager
def stopped_after(seconds):
    """Sends SIGTERM to this process, on which a run saves its step and ends."""
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def score(config, workdir, step, num_samples):
    result = evaluate(
        config,
        workdir,
        num_samples=num_samples,
        inception_weights=_INCEPTION_WEIGHTS.value,
        step=step,
    )
    write_json(workdir / f'evaluation_{step}.json', result)
    say(f'scored step {step}')
    return result


if __name__ == '__main__':
    program.run(main)
