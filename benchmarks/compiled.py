"""Compiles the training step with an accelerator's own compiler, on a machine without one.

    python benchmarks/compiled.py --config=configs/cifar10.py --target=v5e:16x16

Targets: v5e:2x4, v5e:16x16, v5p:8x8x8, v6e:16x16 and whatever else libtpu has by that scheme
(pip install '.[tpu]'), and h100x8 (pip install jax-cuda12-plugin jax-cuda12-pjrt). The pmapped step
is that of the training, for batch = chains = --batch_per_device x devices. One JSON line:

    flops                 per device and step, counted from shapes
    argument_bytes, temp_bytes      per device, by the compiler's plan
    bytes_needed          per device: arguments, results and temporaries, shared bytes once
    all_reduce_bytes      of a device's contribution to the all-reduces of a step
    compile_seconds
    estimated_ms          TPU: the compiler's cycle estimates of all instructions, a loop's body
                          times its iterations, at the chip's clock. Not a measurement
    estimated_peak_share  TPU: the time of `flops` at the chip's bfloat16 peak, divided by that

--text=FILE saves the compiled text, --top=20 prints a TPU's most expensive instructions.
--largest adds `largest_batch_per_device`, the largest that fits in the device's `memory` by the
compiler's plan, and its `largest_bytes`; this takes two more compilations.
"""

import dataclasses
import json
import os
import pathlib
import re
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

import hlo  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import operations  # noqa: E402
import program  # noqa: E402
from absl import flags  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from vaebm_jax import config as vaebm_config  # noqa: E402
from vaebm_jax import create_states, train_step  # noqa: E402
from vaebm_jax.runtime.errors import UserError  # noqa: E402
from vaebm_jax.training.parallel import bytes_needed, compile_step  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/cifar10.py', 'The experiment.')
_TARGET = flags.DEFINE_string('target', 'v5e:2x4', 'A TPU slice, or h100x8.')
_BATCH = flags.DEFINE_integer('batch_per_device', 128, 'Images and chains.', lower_bound=1)
_TEXT = flags.DEFINE_string('text', None, 'Where to keep the compiled text.')
_LARGEST = flags.DEFINE_bool('largest', False, 'Also find the largest batch that fits.')
_TOP = flags.DEFINE_integer('top', 0, 'So many of the costliest instructions are printed.')

MEMORY = {'v5e': 16e9, 'v5p': 95 * 2**30, 'v6e': 32e9, 'h100': 80e9}  # Bytes, as they are sold.
CLOCKS = {  # In Hz, and the peak of bfloat16 products in operations a second.
    'v5e': (1.5e9, 197e12),
    'v5p': (1.75e9, 459e12),
    'v6e': (1.75e9, 918e12),
}


def main(argv):
    del argv
    devices = topology(_TARGET.value).devices
    chip = re.match('h100|[^:]*', _TARGET.value)[0]
    if _LARGEST.value and chip not in MEMORY:
        raise UserError(f'--largest knows the memory of {", ".join(MEMORY)}, got {chip}')
    config = with_batch(_BATCH.value, len(devices))

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
        'bytes_needed': bytes_needed(compiled),
        'all_reduce_bytes': hlo.all_reduce_bytes(text),
        'compile_seconds': seconds,
    }
    if chip in CLOCKS:
        clock, peak = CLOCKS[chip]
        costs = hlo.cycles(text)
        line['estimated_ms'] = 1e3 * sum(cost for cost, _ in costs.values()) / clock
        line['estimated_peak_share'] = 1e3 * flops / peak / line['estimated_ms']
        for name, (cost, what) in sorted(costs.items(), key=lambda item: -item[1][0])[: _TOP.value]:
            print(f'{cost:12,.0f} cycles  {name}  {what}')
    if _LARGEST.value:
        line |= largest(devices, bytes_needed(compiled), MEMORY[chip])
    print(json.dumps(line))


def with_batch(batch_per_device, num_devices):
    """The config with that batch, and a chain an image."""
    batch_size = batch_per_device * num_devices
    config = dataclasses.replace(_CONFIG.value, batch_size=batch_size, num_chains=0)
    vaebm_config.validate(config)
    return config


def largest(devices, needed, memory):
    """The largest batch a device that the compiler's plan has room for, to a multiple of 8.

    From `needed`, the bytes of the batch that was compiled, and those of twice as many images; then
    compiled, and less of it for as long as it does not fit.
    """
    compile_for = lambda batch: lower(with_batch(batch, len(devices)), devices).compile()
    growth = (bytes_needed(compile_for(2 * _BATCH.value)) - needed) / _BATCH.value
    batch = _BATCH.value + (memory - needed) / growth
    while batch >= 8:
        batch = int(batch) // 8 * 8
        try:
            needed = bytes_needed(compile_for(batch))
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error):
                raise
            needed = None  # Its compiler says so itself.
        if needed and needed <= memory:
            return {'largest_batch_per_device': batch, 'largest_bytes': needed, 'memory': memory}
        batch *= 0.9
    return {'largest_batch_per_device': 0, 'memory': memory}


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
    size = config.data.load_size or config.data.image_size
    batch = config.batch_size // len(devices)
    shape = (config.steps_per_call, batch, size, size, config.data.num_channels)
    images = jax.ShapeDtypeStruct((len(devices), *shape), jnp.uint8)
    step = compile_step(train_step, config, devices)
    return step.lower(key, states, images, 1)


if __name__ == '__main__':
    program.run(main)
