"""Which kernels a training step runs on an accelerator, and how long each takes.

    python benchmarks/kernels.py --config=configs/cifar10.py:paper --dtype=bfloat16

From a trace of three steps, read here: no viewer is needed. A table of the kernels that take the
most time, each with its share, its calls a step, its milliseconds a step and what it computes, and
last a JSON line: `ms` a step as traced, `busy_ms` (time in which some kernel runs), `idle_share`,
`kernels` a step, and `tflops_per_second` from the operations that the step's shapes need. On a CPU,
whose traces name no kernels, the rows are XLA's operations, which overlap.
"""

import collections
import dataclasses
import json
import pathlib
import re
import tempfile
import time

import jax
import numpy as np
import operations
import program
from absl import flags
from jax.profiler import ProfileData
from ml_collections import config_flags

from vaebm_jax import config as vaebm_config
from vaebm_jax import create_states, train_step
from vaebm_jax.data.order import batch_indices
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training.parallel import compile_step, hold_images, place_states

STEPS = 3
NUM_IMAGES = 10_000

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/cifar10.py', 'The experiment.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 0, "In place of the config's; chains as well.")
_DTYPE = flags.DEFINE_enum('dtype', None, ['float32', 'bfloat16'], "In place of the config's.")
_ROWS = flags.DEFINE_integer('rows', 40, 'Kernels to list.', lower_bound=1)


def main(argv):
    del argv
    config = chosen_config(steps_per_call=1)
    run, text = step_of(config)
    operation_of = operations_of(text)
    several = lambda: [run() for _ in range(STEPS)]
    several()
    events, seconds = traced(several)
    times, calls, samples = collections.Counter(), collections.Counter(), {}
    for name, operation, _, duration in events:
        times[name] += duration
        calls[name] += 1
        samples.setdefault(name, set()).add(operation)
    total = sum(times.values())
    print(f'{"share":>6} {"calls":>7} {"ms":>8}  kernel: operations')
    for name, duration in times.most_common(_ROWS.value):
        what = sorted(operation_of.get(operation, operation) for operation in samples[name])
        print(
            f'{duration / total:6.1%} {calls[name] / STEPS:7.1f} {duration / STEPS / 1e6:8.3f}  '
            f'{name[:90]}: {"; ".join(what[:3])[:300]}'
        )
    line = {
        **use_of(events, seconds),
        'tflops_per_second': operations.count(config) * STEPS / seconds / 1e12,
        'device': jax.devices()[0].device_kind,
        'jax': jax.__version__,
    }
    print(json.dumps(line), flush=True)


def chosen_config(steps_per_call):
    """The config as the flags have it."""
    config = dataclasses.replace(
        _CONFIG.value, dtype=_DTYPE.value or _CONFIG.value.dtype, steps_per_call=steps_per_call
    )
    if _BATCH_SIZE.value:
        config = dataclasses.replace(config, batch_size=_BATCH_SIZE.value, num_chains=0)
    vaebm_config.validate(config)
    return config


def step_of(config):
    """A call of `num_steps` steps that waits for its end, and its compiled text.

    `steps_per_call` of the config is the default of `num_steps`, and its largest value. The call
    returns the metrics of its last step.
    """
    key = jax.random.key(config.seed, impl=config.generator)
    device = jax.devices()[:1]
    shape = (config.data.image_size, config.data.image_size, config.data.num_channels)
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, *shape), np.uint8)
    gather = hold_images(pixels, device)
    held = [place_states(create_states(key, config), device)]
    steps = range(config.steps_per_call)
    order = np.stack([batch_indices(key, step, NUM_IMAGES, config.batch_size) for step in steps])
    step = compile_step(train_step, config, device)
    compiled = step.lower(key, held[0], gather(order), 1).compile()

    def run(num_steps=config.steps_per_call):
        held[0], metrics = compiled(key, held[0], gather(order), num_steps)
        return jax.block_until_ready((held[0], metrics))[1]

    return run, compiled.as_text()


def operations_of(text):
    """Of each instruction of a compiled program, by its name, its shape and where it comes from."""
    found = {}
    for line in text.splitlines():
        if match := re.match(r'^\s*(?:ROOT )?%?([\w.-]+) = (\([^)]*\)|\S+) ', line):
            source = re.search(r'op_name="([^"]*)"', line)
            where = '/'.join(source[1].split('/')[-4:]) if source else ''
            found[match[1]] = f'{match[1]} {match[2]} {where}'
    return found


def traced(run):
    """The kernels of a call, as `kernels` lists them, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
        (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
        events = list(kernels(ProfileData.from_file(str(path))))
    if not events:
        raise UserError('the trace holds no kernels')
    return events, seconds


def use_of(events, seconds):
    """What a trace of STEPS steps says of one."""
    ms, busy = 1e3 * seconds / STEPS, busy_time(events) / STEPS / 1e6
    count = len(events) / STEPS
    return {'ms': ms, 'busy_ms': busy, 'idle_share': 1 - busy / ms, 'kernels': count}


def kernels(profile):
    """`(kernel, operation, start, duration)` of each kernel in a trace, in nanoseconds."""
    planes = list(profile.planes)
    devices = [plane for plane in planes if plane.name.startswith('/device:')]
    for plane in devices or planes:
        for line in plane.lines:
            if devices and not line.name.startswith('Stream'):
                continue
            for event in line.events:
                stats = dict(event.stats)
                operation = stats.get('hlo_op')
                if operation is None and not devices:
                    continue
                yield event.name, str(operation or event.name), event.start_ns, event.duration_ns


def busy_time(events):
    """Nanoseconds in which at least one kernel runs."""
    busy, end = 0.0, 0.0
    for _, _, start, duration in sorted(events, key=lambda event: event[2]):
        busy += max(0.0, start + duration - max(start, end))
        end = max(end, start + duration)
    return busy


if __name__ == '__main__':
    program.run(main)
