"""benchmarks/gpu_options.py, as a command on a CPU."""

import json
import os
import subprocess
import sys

import pytest
from helpers.commands import ROOT

CONVOLUTIONS = '(("conv",8,3,1),("conv",16,4,2))'


def run(*command):
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | {'PYTHONPATH': f'{ROOT}:{ROOT}/benchmarks', 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
    )


def time_options(out, *flags):
    return run(
        ROOT / 'benchmarks' / 'gpu_options.py', f'--config={ROOT}/configs/digits.py',
        '--batch_size=4', '--steps=3', '--calls=2', f'--out={out}', *flags,
    )  # fmt: skip


@pytest.mark.slow
def test_each_option_is_timed_traced_and_compared_and_an_unknown_one_noted(tmp_path):
    done = time_options(
        tmp_path, '--only=plain,patches,batch_64', '--xla=no_such_thing=1',
        '--seconds=100000',
        f'--config.network.energy={CONVOLUTIONS}', f'--config.network.encoder={CONVOLUTIONS}',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / 'options.jsonl').read_text().splitlines()]
    plain, patches, other_batch, unknown = lines[:4]
    assert 'no_such_thing' in unknown['failed'] and 'ms' not in unknown
    for line in (plain, patches, other_batch):
        assert line['ms'] > 0 and 0 < line['kernels'] and line['busy_ms'] > 0
        assert line['peak_share'] is None  # Of a CPU none is known.
    assert plain['difference'] == 0 and 'difference' not in other_batch
    assert 0 < patches['difference'] < 1e-4 and patches['is_equal']
    assert other_batch['images_per_second'] == pytest.approx(64e3 / other_batch['ms'])
    text = (tmp_path / 'options.md').read_text()
    assert text in done.stdout
    assert [row.split(' ')[1] for row in text.splitlines()[2:6]] == [
        'plain', 'patches', 'batch_64', 'no_such_thing=1',
    ]  # fmt: skip


@pytest.mark.slow
def test_the_time_is_kept(tmp_path):
    done = time_options(tmp_path, '--seconds=1', '--only=plain,patches')
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / 'options.jsonl').read_text().splitlines()]
    assert [line['failed'] for line in lines] == ['not done in 1 s', 'no time']


@pytest.mark.slow
@pytest.mark.parametrize('flag, said', [
    ('--only=plain,patched', "--only has 'patched'"), ('--xla=force_conv_nchw', '--xla is NAME='),
])  # fmt: skip
def test_other_options_are_refused(tmp_path, flag, said):
    done = time_options(tmp_path / 'out', flag)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f'error: {said}')
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_together_go_those_that_are_faster_and_equal():
    lines = {
        'plain': {'ms': 100.0, 'is_equal': True},
        'patches': {'ms': 90.0, 'is_equal': True},
        'graphs': {'ms': 98.0, 'is_equal': True},
        'nchw': {'ms': 99.5, 'is_equal': True},  # Within the noise.
        'unroll_2': {'ms': 50.0, 'is_equal': False},
        'rbg': {'ms': 50.0},
        'conv_fusion': {'failed': 'status 1'},
    }
    program = f"""
import gpu_options as g
winners = g.winners_of({lines!r})
print(winners, *g.joined([g.OPTIONS[name] for name in winners])[:2])
print(g.difference({{'a': 1.1, 'b': -4.0}}, {{'a': 1.0, 'b': -4.0}}))
print(g.difference({{'a': 1.1, 'b': float('nan')}}, {{'a': 1.0, 'b': -4.0}}))
"""
    done = run('-c', program)
    assert done.returncode == 0, done.stderr
    together, difference, of_nan = done.stdout.splitlines()
    graphs = "{'enable_command_buffer': '+CONVOLUTION,+WHILE'}"
    assert together == f"['patches', 'graphs'] {graphs} ('--config.convolution=patches',)"
    assert float(difference) == pytest.approx(0.1) and of_nan == 'nan'
