"""Processes killed at random moments, again and again: the run ends as if nothing had happened."""

import dataclasses
import hashlib
import json
import signal
import time

import jax
import numpy as np
import pytest
from helpers.commands import start
from helpers.runs import rows, train

from vaebm_jax import load


def digest(workdir):
    """Of the parameters, averages, optimizer states and step of the newest checkpoint."""
    leaves = jax.tree.leaves(load(workdir)[0])
    return hashlib.sha256(b''.join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def last_step(workdir):
    """As far as the rows of metrics tell it; the last line may be half written."""
    path = workdir / 'metrics.jsonl'
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b'\n')]
    return json.loads(whole[-1])['step'] if whole else 0


@pytest.mark.parametrize('num_kills', [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_killed_again_and_again_is_the_run_left_alone(tiny_config, tmp_path, num_kills):
    # Nearly all of its time goes into checkpoints and pictures, so that most kills hit one.
    config = dataclasses.replace(
        tiny_config, num_steps=25 * num_kills, log_every=1, checkpoint_every=2, sample_every=20
    )
    random = np.random.default_rng(0)
    # By the run's progress, and each fourth by the clock, while it is still starting.
    for kill in range(num_kills):
        process = start(config, tmp_path / 'killed')
        if kill % 4 == 3:
            time.sleep(random.uniform(0.0, 5.0))
        else:
            target = min(last_step(tmp_path / 'killed') + random.integers(1, 25), config.num_steps)
            while last_step(tmp_path / 'killed') < target:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            time.sleep(random.uniform(0.0, 0.1))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(config, tmp_path / 'killed')
    _, errors = process.communicate()
    assert process.returncode == 0, errors

    train(config, tmp_path / 'alone')
    assert digest(tmp_path / 'killed') == digest(tmp_path / 'alone')
    assert rows(tmp_path / 'killed') == rows(tmp_path / 'alone')
    for name in ('samples', 'checkpoints'):
        ours, theirs = (
            sorted(path.name for path in (tmp_path / run / name).iterdir())
            for run in ('killed', 'alone')
        )
        assert ours == theirs
    for picture in (tmp_path / 'alone' / 'samples').iterdir():
        assert (tmp_path / 'killed' / 'samples' / picture.name).read_bytes() == picture.read_bytes()


@pytest.mark.slow
def test_twenty_interruptions_are_saved_within_a_call_and_two_seconds(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, num_steps=10**6, log_every=20, checkpoint_every=0)
    random = np.random.default_rng(0)
    waits = []
    for _ in range(20):
        before = last_step(tmp_path / 'run')
        process = start(config, tmp_path / 'run')
        while last_step(tmp_path / 'run') <= before:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 1.0))
        began = time.perf_counter()
        process.send_signal(random.choice([signal.SIGTERM, signal.SIGINT]))
        line = next(line for line in process.stderr if line.startswith('interrupted: '))
        waits.append(time.perf_counter() - began)
        process.communicate()
        assert process.returncode == 75 and f' of {config.num_steps} is saved' in line
    print(f'saved after {min(waits):.2f} to {max(waits):.2f} s, {np.mean(waits):.2f} on average')
    assert max(waits) < 2.0


@pytest.mark.slow
def test_an_interruption_while_it_compiles_is_saved_after_the_first_call(tiny_config, tmp_path):
    process = start(tiny_config, tmp_path / 'run')
    next(line for line in process.stderr if line.startswith('compiling'))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 75 and 'step 1 of 6 is saved' in errors
