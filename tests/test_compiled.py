"""What the accelerators' own compilers make of the step; no such device is needed.

`-m compilers` is what .ci/run asks of every change; the rest of what is marked slow takes hours.
"""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
from helpers.commands import ROOT
from helpers.configs import NUM_PARAMETERS, read_config

TARGETS = ('v5e:2x4', 'h100x8')
PODS = ('v5e:16x16', 'v5p:8x8x8', 'v6e:16x16', 'h100x8')
CONFIGS = [name for name in NUM_PARAMETERS if not name.startswith('toy2d')]


def compile_step(target, config, *flags):
    """The line that benchmarks/compiled.py prints."""
    needed = 'jax_cuda12_plugin' if target.startswith('h100') else 'libtpu'
    if not importlib.util.find_spec(needed):
        pytest.skip(f'{needed} is not installed')
    file, _, variant = config.partition(':')
    command = [
        *(sys.executable, ROOT / 'benchmarks' / 'compiled.py', f'--target={target}'),
        *(f'--config={ROOT}/configs/{file}.py:{variant}'.rstrip(':'), *flags),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def assert_sums_gradients_once(line, config_name):
    """Gradients, each pixel's mean in three sets of images, and twelve means: in float32."""
    config = read_config(config_name)
    num_pixels = config.data.image_size**2 * config.data.num_channels
    right = 4 * (sum(NUM_PARAMETERS[config_name]) + 3 * num_pixels + 12)
    # The bias of the energy's last layer has no gradient, and a compiler may see it.
    assert 0 <= right - line['all_reduce_bytes'] <= 4 * config.network.energy_outputs


@pytest.mark.slow
@pytest.mark.compilers
@pytest.mark.parametrize('target', TARGETS)
def test_the_digits_step_compiles_for_accelerators(target):
    line = compile_step(target, 'digits', '--batch_per_device=16')
    assert line['num_devices'] == 8
    assert_sums_gradients_once(line, 'digits')
    assert line['argument_bytes'] + line['temp_bytes'] < 100e6


@pytest.mark.slow
@pytest.mark.parametrize('target', PODS)
@pytest.mark.parametrize('config', CONFIGS)
def test_every_config_compiles_for_pods(config, target):
    line = compile_step(target, config, '--batch_per_device=16')
    assert line['num_devices'] == {'v5p:8x8x8': 512, 'h100x8': 8}.get(target, 256)
    assert_sums_gradients_once(line, config)
    assert line['bytes_needed'] < 16e9


@pytest.fixture(scope='module', params=TARGETS)
def compiled(request, tmp_path_factory):
    """The target, the script's line, and the text, of 128 images a device in bfloat16."""
    text = tmp_path_factory.mktemp('compiled') / 'step.txt'
    line = compile_step(request.param, 'cifar10', '--config.dtype=bfloat16', f'--text={text}')
    return request.param, line, text.read_text()


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
    assert_sums_gradients_once(line, 'cifar10')
