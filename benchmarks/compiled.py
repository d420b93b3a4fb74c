"""Compiles the training step with an accelerator's own compiler, on a machine without one.

    python benchmarks/compiled.py --config=configs/cifar10.py --target=v5e:16x16

Targets: v5e:2x4, v5e:16x16, v5p:8x8x8, v6e:16x16 and whatever else libtpu has by that scheme
(pip install '.[tpu]'), and h100x8 (pip install jax-cuda12-plugin jax-cuda12-pjrt). The pmapped step
is the one that training runs, for batch = chains = --batch_per_device x devices. One JSON line:

    flops                 a device and step, counted from shapes
    argument_bytes, temp_bytes      of a device, by the compiler's plan
    all_reduce_bytes      that a device contributes to the all-reduces of a step
    compile_seconds
    estimated_ms          TPU: the compiler's cycle estimates of all instructions, a loop's body
                          times its trips, at the chip's clock. A model, not a measurement
    estimated_peak_share  TPU: what `flops` take at the chip's bfloat16 peak, over that

--text=FILE keeps the compiled text, --top=20 prints the costliest instructions of a TPU's.
"""

import collections
import json
import math
import os
import pathlib
import re
import sys
import time

# Before JAX is imported: no accelerator is looked for, and none is asked for its neighbours.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ |= {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_gpu_autotune_level=0'

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import operations  # noqa: E402
from absl import app, flags  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from vaebm_jax import config as vaebm_config  # noqa: E402
from vaebm_jax import create_states, train_step  # noqa: E402
from vaebm_jax.errors import UserError  # noqa: E402
from vaebm_jax.parallel import compile_step  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/cifar10.py', 'The experiment.')
_TARGET = flags.DEFINE_string('target', 'v5e:2x4', 'A TPU slice, or h100x8.')
_BATCH = flags.DEFINE_integer('batch_per_device', 128, 'Images and chains.', lower_bound=1)
_TEXT = flags.DEFINE_string('text', None, 'Where to keep the compiled text.')
_TOP = flags.DEFINE_integer('top', 0, 'So many of the costliest instructions are printed.')

CHIPS = {  # Clock in Hz, peak of bfloat16 products in operations a second.
    'v5e': (1.5e9, 197e12),
    'v5p': (1.75e9, 459e12),
    'v6e': (1.75e9, 918e12),
}
BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 's32': 4, 'u32': 4, 'f64': 8}


def main(argv):
    del argv
    config = _CONFIG.value
    devices = topology(_TARGET.value).devices
    config.batch_size, config.num_chains = _BATCH.value * len(devices), 0
    vaebm_config.validate(config)

    start = time.perf_counter()
    compiled = lower(config, devices).compile()
    seconds = time.perf_counter() - start
    text = compiled.as_text()
    if _TEXT.value:
        pathlib.Path(_TEXT.value).write_text(text)
    memory = compiled.memory_analysis()
    flops = operations.count(config) / len(devices)
    line = {
        'target': _TARGET.value,
        'num_devices': len(devices),
        'batch_per_device': _BATCH.value,
        'dtype': config.dtype,
        'flops': flops,
        'argument_bytes': memory.argument_size_in_bytes,
        'temp_bytes': memory.temp_size_in_bytes,
        'all_reduce_bytes': all_reduce_bytes(text),
        'compile_seconds': seconds,
    }
    chip = _TARGET.value.partition(':')[0]
    if chip in CHIPS:
        clock, peak = CHIPS[chip]
        costs = cycles(text)
        line['estimated_ms'] = 1e3 * sum(cost for cost, _ in costs.values()) / clock
        line['estimated_peak_share'] = 1e3 * flops / peak / line['estimated_ms']
        for name, (cost, what) in sorted(costs.items(), key=lambda item: -item[1][0])[: _TOP.value]:
            print(f'{cost:12,.0f} cycles  {name}  {what}')
    print(json.dumps(line))


def topology(target):
    """The devices of a target; nothing of them is there."""
    try:
        if target.startswith('h100x'):
            return topologies.get_topology_desc(
                platform='cuda',
                topology_name='',
                topology=f'1x1x{int(target.removeprefix("h100x"))}',
                target_config=pathlib.Path(__file__).with_name('h100.txt').read_text(),
            )
        return topologies.get_topology_desc(platform='tpu', topology_name=target)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        reason = ' '.join(str(error).split())[:300]
        raise UserError(f'--target={target} cannot be compiled for here: {reason}') from error


def lower(config, devices):
    """The call of `parallel.compile_step`, lowered for shapes alone."""
    key = jax.eval_shape(lambda: jax.random.key(0, impl=config.generator))
    states = jax.eval_shape(lambda key: create_states(key, config), key)
    size = config.data.image_size
    shape = (config.steps_per_call, _BATCH.value, size, size, config.data.num_channels)
    images = jax.ShapeDtypeStruct((len(devices), *shape), jnp.uint8)
    step = compile_step(train_step, config, devices)
    return step.lower(key, states, images, 1)


def computations(text):
    """The instructions of each computation, `{name: lines}`, and the name of the entry."""
    bodies, name, entry = collections.defaultdict(list), None, None
    for line in text.splitlines():
        if head := re.match(r'(ENTRY )?%?([\w.\-]+) .*\{$', line):
            name = head[2]
            entry = name if head[1] else entry
        elif line.startswith('}'):
            name = None
        elif name:
            bodies[name].append(line)
    return bodies, entry


def cycles(text):
    """By instruction: the compiler's estimate, times the trips of the loops around it, and what."""
    bodies, entry = computations(text)
    costs = {}

    def visit(computation, times):
        for line in bodies[computation]:
            name = re.match(r'\s*(?:ROOT )?%?([\w.\-]+) =', line)
            if loop := re.search(r'\bwhile\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)', line):
                visit(loop[2], times * trips(bodies[loop[1]]))
            elif estimate := re.search(r'estimated_cycles":"(\d+)"', line):
                source = re.search(r'op_name="([^"]*)"', line)
                what = re.sub(r'\{[^}]*\}', '', line.split(' = ', 1)[1].split('(')[0])
                costs[name[1]] = times * int(estimate[1]), f'{what}  {source[1] if source else ""}'

    visit(entry, 1)
    return costs


def trips(condition):
    """How often a loop runs: it counts from 0 to the one integer that its condition compares to."""
    (limit,) = {int(n) for n in re.findall(r's32\[\]\S* constant\((\d+)\)', '\n'.join(condition))}
    return limit


def all_reduce_bytes(text):
    """Of the arrays that the all-reduces of a step sum."""
    total = 0
    for line in text.splitlines():
        if found := re.search(r'= (.*?) all-reduce(?:-start)?\(', line):
            size = sum(
                BYTES[dtype] * math.prod(int(n) for n in shape.split(',') if n)
                for dtype, shape in re.findall(r'(\w+)\[([\d,]*)\]', found[1])
            )
            # One that is started and awaited may have its operands in its type as well.
            total += size // 2 if found[1].startswith('((') else size
    return total


def run():
    try:
        app.run(main)
    except UserError as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    run()
