"""Signals to real processes: nothing is lost, and a scheduler can tell."""

import dataclasses
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from helpers.commands import start, wait_for
from helpers.runs import rows

from vaebm_jax import load
from vaebm_jax.runtime.signals import noticed
from vaebm_jax.training.loop import train


@pytest.mark.parametrize(
    'number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_is_saved_and_goes_on_to_the_same_end(tiny_config, tmp_path, number):
    config = dataclasses.replace(tiny_config, num_steps=4000, log_every=200, checkpoint_every=0)
    process = start(config, tmp_path / 'run')
    wait_for(tmp_path / 'run' / 'metrics.jsonl', process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    last = errors.splitlines()[-1]
    assert last.startswith(f'interrupted: {number.name}; step ') and 'Traceback' not in errors
    states, _ = load(tmp_path / 'run')
    assert f'step {int(states.step)} of 4000 is saved' in last

    process = start(config, tmp_path / 'run')
    assert process.wait(timeout=120) == 0
    train(config, tmp_path / 'alone')
    assert rows(tmp_path / 'run') == rows(tmp_path / 'alone')
    ours, theirs = (jax.tree.leaves(load(tmp_path / name)[0]) for name in ('run', 'alone'))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_second_signal_ends_it_at_once(tiny_config, tmp_path):
    code = (
        'import os, signal, time\n'
        'from vaebm_jax.runtime.signals import noticed\n'
        'with noticed() as name:\n'
        '    os.kill(os.getpid(), signal.SIGTERM)\n'
        '    assert name() == "SIGTERM"\n'
        '    os.kill(os.getpid(), signal.SIGTERM)\n'
        '    time.sleep(60)\n'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == -signal.SIGTERM


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with noticed() as name:
        assert signal.getsignal(signal.SIGTERM) != before
        assert name() == ''
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_of_someone_elses_program_is_left_alone(tiny_config, tmp_path):
    """Python handles signals in the main thread alone; there is none to take them from."""
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tiny_config, tmp_path)))
    thread.start()
    thread.join()
    assert int(results[0].step) == 6
