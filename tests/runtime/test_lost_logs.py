"""Runs whose terminal, pipe or disk for lines is gone: nothing else is lost."""

import contextlib
import dataclasses
import json
import os
import pathlib
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest
from helpers.commands import ROOT, start, wait_for, write_config

from vaebm_jax import load
from vaebm_jax.runtime import log
from vaebm_jax.training.loop import train


def command(config, workdir):
    """For a shell, beside what it opens or closes."""
    file = write_config(config, workdir)
    return f'{sys.executable} -m vaebm_jax.main --config={file} --workdir={workdir}'


def shell(line, folder):
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XDG_CACHE_HOME': str(folder)}
    return subprocess.run(
        ['bash', '-c', line], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def end_of(workdir):
    """The step of the newest checkpoint, and the logged ones."""
    rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return int(load(workdir)[0].step), [row['step'] for row in rows]


@pytest.mark.parametrize(
    'stderr',
    [
        '2>/dev/full',
        '>&- 2>&- <&-',
        *(
            pytest.param(stderr, marks=pytest.mark.slow)
            for stderr in ('2>&-', '2>&1 >/dev/null | head -n 1', '2>&1 | :')
        ),
    ],
)
def test_a_run_whose_lines_cannot_be_written_is_finished(tiny_config, tmp_path, stderr):
    result = shell(
        f'{command(tiny_config, tmp_path / "run")} {stderr}; exit ${{PIPESTATUS[0]}}', tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert end_of(tmp_path / 'run') == (6, [2, 4, 6])
    assert result.stderr == '' and len(result.stdout.splitlines()) == ('head' in stderr)
    train(tiny_config, tmp_path / 'alone')
    ours, theirs = ((tmp_path / name / 'checkpoints').iterdir() for name in ('run', 'alone'))
    assert sorted(path.name for path in ours) == sorted(path.name for path in theirs)


def test_mistakes_and_interruptions_keep_their_status_on_a_full_disk(tiny_config, tmp_path):
    wrong = f'{command(tiny_config, tmp_path / "run")} --config.batch_size=0 2>/dev/full'
    assert shell(wrong, tmp_path).returncode == 1
    config = dataclasses.replace(tiny_config, num_steps=10**5, checkpoint_every=0)
    line = (
        f'{command(config, tmp_path / "run")} 2>/dev/full & '
        f'while [ ! -e {tmp_path}/run/metrics.jsonl ]; do sleep 0.1; done; kill $!; wait $!'
    )
    assert shell(line, tmp_path).returncode == 75
    assert 0 < end_of(tmp_path / 'run')[0] < 10**5


@pytest.fixture(autouse=True)
def _hang_ups_count():
    """Also where this suite was itself started by nohup, whose children would ignore them."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_closes_saves_the_run(tiny_config, tmp_path):
    """Its end is a SIGHUP and, from then on, EIO for every line of a bar."""
    config = dataclasses.replace(tiny_config, num_steps=10**5, log_every=20, checkpoint_every=0)
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 200))
    process = subprocess.Popen(
        ['setsid', '--ctty', *command(config, tmp_path / 'run').split()],
        cwd=ROOT,
        env=os.environ | {'JAX_PLATFORMS': 'cpu', 'XDG_CACHE_HOME': str(tmp_path)},
        stdin=end,
        stdout=end,
        stderr=end,
    )
    os.close(end)
    shown = b''
    with open(terminal, 'rb', buffering=0) as screen:
        while b'energy of data' not in shown:  # In the bar of a logged step.
            shown += screen.read(1000)
    assert process.wait(timeout=240) == 75, shown
    step, logged = end_of(tmp_path / 'run')
    assert 0 < step < 10**5 and logged[-1] in (step, step // 20 * 20)


def test_a_hang_up_that_is_ignored_is_ignored(tiny_config, tmp_path):
    """As nohup does it; what it says is in a file."""
    config = dataclasses.replace(tiny_config, num_steps=2000, log_every=200, checkpoint_every=0)
    line = (
        f'nohup {command(config, tmp_path / "run")} > {tmp_path}/log 2>&1 & '
        f'while [ ! -e {tmp_path}/run/metrics.jsonl ]; do sleep 0.1; done; kill -HUP $!; wait $!'
    )
    result = shell(line, tmp_path)
    assert result.returncode == 0, (tmp_path / 'log').read_text()
    assert end_of(tmp_path / 'run')[0] == 2000


def test_several_hang_ups_are_one(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, num_steps=10**5, log_every=200, checkpoint_every=0)
    process = start(config, tmp_path / 'run')
    wait_for(tmp_path / 'run' / 'metrics.jsonl', process)
    for _ in range(3):
        process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 75 and 'interrupted: SIGHUP; step ' in errors, errors


@pytest.mark.parametrize('ignored', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_hang_up_ends_other_modes_as_sigterm_does(tiny_config, tmp_path, ignored):
    train(tiny_config, tmp_path / 'run')
    arguments = [f'--workdir={tmp_path}/run', '--mode=sample', '--num_samples=200000']
    process = subprocess.Popen(
        [*(['nohup'] * ignored), sys.executable, '-m', 'vaebm_jax.main', *arguments],
        cwd=ROOT,
        env=os.environ | {'JAX_PLATFORMS': 'cpu', 'XDG_CACHE_HOME': str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        next(line for line in process.stderr if line.startswith('sample: step 6'))
        time.sleep(0.5)
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
        if ignored:
            time.sleep(0.5)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
        lines = process.communicate(timeout=240)[1].splitlines()
    assert (
        process.returncode == 75 and lines[-1] == 'interrupted: the same command resumes the work'
    )


@pytest.mark.parametrize(
    'stdout, status, told',
    [
        ('| :', 0, ''),
        ('>&-', 0, ''),
        ('>/dev/full', 1, 'error: stdout cannot be written (No space left on device)\n'),
    ],
)
@pytest.mark.parametrize('mode', ['--help', '--version', '--mode=report'])
def test_whoever_closes_stdout_has_read_enough(tiny_config, tmp_path, mode, stdout, status, told):
    train(tiny_config, tmp_path / 'run')
    arguments = f'--workdir={tmp_path}/run {mode}' if 'report' in mode else mode
    line = f'{sys.executable} -m vaebm_jax.main {arguments} {stdout}; exit ${{PIPESTATUS[0]}}'
    result = shell(line, tmp_path)
    assert (result.returncode, result.stderr, result.stdout) == (status, told, '')
    assert (tmp_path / 'run' / 'report.html').exists() == ('report' in mode)


@pytest.mark.parametrize('kind', ['full', 'broken pipe', 'closed', 'none'])
def test_in_someone_elses_program_too(tiny_config, tmp_path, monkeypatch, kind):
    with contextlib.ExitStack() as stack:
        if kind == 'broken pipe':
            reader, writer = os.pipe()
            os.close(reader)
        else:
            writer = os.open('/dev/full', os.O_WRONLY)
        stack.callback(os.close, writer)
        stream = open(writer, 'w', buffering=1, closefd=False)
        if kind == 'closed':
            stream.close()
        monkeypatch.setattr(sys, 'stderr', None if kind == 'none' else stream)
        log.say('a line')
        assert list(log.tracked(range(3), 'counting', 'numbers', 3, seconds=0.0)) == [0, 1, 2]
        assert int(train(tiny_config, tmp_path / 'run').step) == 6
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            stream.close()
    assert pathlib.Path(tmp_path / 'run' / 'checkpoints' / '6').is_dir()
