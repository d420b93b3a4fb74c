"""benchmarks/timed_run.py and kernels.py, as commands."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(script, *flags):
    return subprocess.run(
        [
            sys.executable,
            ROOT / 'benchmarks' / script,
            f'--config={ROOT}/configs/digits.py',
            *flags,
        ],
        env=os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_run_of_so_many_minutes_ends_in_time_and_is_scored_by_quarters(tmp_path):
    workdir = tmp_path / 'run'
    start = time.monotonic()
    done = run(
        'timed_run.py', f'--workdir={workdir}', '--minutes=0.5', '--probe_calls=4',
        '--num_samples=16', '--quarter_samples=8', '--config.steps_per_call=2',
        '--config.log_every=10',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trained = [line for line in done.stdout.splitlines() if line.endswith(': trained')]
    assert float(trained[0].split()[0]) < 33
    assert time.monotonic() - start < 120
    steps = sorted(int(path.stem.split('_')[1]) for path in workdir.glob('evaluation_*.json'))
    last = json.loads((workdir / 'config.json').read_text())['num_steps']
    assert len(steps) == 4 and last % 8 == 0
    assert steps[:3] == [last // 4, last // 2, 3 * last // 4]
    of_last = json.loads((workdir / f'evaluation_{steps[-1]}.json').read_text())
    assert of_last['checkpoint_step'] == steps[-1] <= last
    assert of_last['refined']['num_samples'] == 16
    assert json.loads((workdir / 'evaluation.json').read_text()) == of_last
    # The schedule ends with the run's own steps, not with the config's 1,000.
    assert len(list((workdir / 'samples').glob('*.png'))) == 4


@pytest.mark.slow
def test_too_few_minutes_are_refused(tmp_path):
    done = run('timed_run.py', f'--workdir={tmp_path}/run', '--minutes=0.01', '--probe_calls=2')
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith('error: minutes must leave time for')


@pytest.mark.slow
def test_kernels_are_busy_for_a_part_of_the_step():
    done = run('kernels.py', '--batch_size=8', '--rows=5')
    assert done.returncode == 0, done.stderr
    *rows, last = done.stdout.splitlines()
    assert len(rows) == 6
    line = json.loads(last)
    assert 0 < line['busy_ms'] < line['ms']
    assert line['idle_share'] == pytest.approx(1 - line['busy_ms'] / line['ms'])
    # 20 turns of a chain of 3 layers, forward and back.
    assert line['kernels'] > 20 * 2 * 3
