"""What the accelerators' own compilers make of the step; no such device is needed."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest
from test_configs import NUM_PARAMETERS

ROOT = pathlib.Path(__file__).parent.parent
NEEDED = {'v5e:2x4': 'libtpu', 'h100x8': 'jax_cuda12_plugin'}


@pytest.fixture(scope='module', params=list(NEEDED))
def compiled(request, tmp_path_factory):
    """The target, the script's line, and the text, of 128 images a device in bfloat16."""
    if not importlib.util.find_spec(NEEDED[request.param]):
        pytest.skip(f'{NEEDED[request.param]} is not installed')
    text = tmp_path_factory.mktemp('compiled') / 'step.txt'
    command = [
        *(sys.executable, ROOT / 'benchmarks' / 'compiled.py', f'--target={request.param}'),
        *(f'--config={ROOT}/configs/cifar10.py', '--config.dtype=bfloat16', f'--text={text}'),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return request.param, json.loads(run.stdout.splitlines()[-1]), text.read_text()


@pytest.mark.slow
def test_a_turn_of_the_chain_moves_no_parameter_and_gradients_are_summed_at_once(compiled):
    target, line, text = compiled
    computations = dict(re.findall(r'^(?:ENTRY )?%?([\w.\-]+) \(.*?\{$(.*?)^\}', text, re.M | re.S))
    loops = re.findall(r' while\(.*body=%?([\w.\-]+).*op_name="[^"]*shard_map/while"', text)
    assert len(loops) == 1
    body = computations[loops[0]]
    # All that a turn computes begins with the batch, but for what is recorded of its 15 turns.
    shapes = re.findall(r'= \(*\w+\[([\d,]+)\]\S* (?:fusion|copy|transpose|convert)\(', body)
    others = {shape for shape in shapes if ',' in shape and not shape.startswith('128,')}
    assert others <= {'1,128', '15,128'}
    if target.startswith('h100'):
        assert body.count('"__cudnn$conv') == 8

    # One, or two where the compiler joins them up to 30 MB only.
    assert len(re.findall(r' all-reduce(?:-start)?\(', text)) <= 2
    assert line['num_devices'] == 8
    # Gradients in float32, and a few metrics with the moments of a pixel.
    parameters = sum(NUM_PARAMETERS['cifar10'])
    assert 0 <= line['all_reduce_bytes'] - 4 * parameters < 60_000
