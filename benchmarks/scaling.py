"""Times the training step on 1, 2, 4 and 8 devices, with equal work per device or in all.

    python benchmarks/scaling.py --config=configs/digits.py --devices=1,2,4,8
    python benchmarks/scaling.py --config=configs/digits.py --devices=2,4 --processes=2

On a CPU the devices are simulated, in --processes processes. They share its cores, so times show
only the overhead of dividing the same work, not how fast many devices are. One JSON line per point:

    name                weak: --batch_per_device images and chains each; strong: --batch in all
    num_devices, num_processes, batch_size, platform
    ms, cpu_ms          of a step: wall time, and CPU time over all threads and processes; medians
                        of --calls
    steps_per_second, images_per_second     by wall time
    all_reduce_bytes    that a device contributes to the all-reduces of a step
    efficiency          images per second and device, divided by those of the name's first point
    cpu_overhead        CPU time per image divided by that of the first point, minus 1 (on CPUs)

--config.steps_per_call=10 times steps with ten per call.
"""

import dataclasses
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time

# Before JAX is imported. On 2 cores JAX 0.10 aborts with several simulated devices but for NPROC.
os.environ.setdefault('NPROC', '8')

import hlo  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import program  # noqa: E402
from absl import flags  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from vaebm_jax import config as vaebm_config  # noqa: E402
from vaebm_jax import create_states, train_step  # noqa: E402
from vaebm_jax.data.order import batch_indices  # noqa: E402
from vaebm_jax.runtime import distributed  # noqa: E402
from vaebm_jax.runtime.errors import UserError  # noqa: E402
from vaebm_jax.training.parallel import (  # noqa: E402
    all_devices,
    check_divides,
    compile_step,
    hold_images,
    place_states,
)

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/digits.py', 'The experiment.')
_DEVICES = flags.DEFINE_list('devices', ['1', '2', '4', '8'], 'Numbers of devices.')
_WEAK = flags.DEFINE_integer('batch_per_device', 64, 'Of the weak points.', lower_bound=1)
_STRONG = flags.DEFINE_integer('batch', 256, 'Of the strong points.', lower_bound=1)
_CALLS = flags.DEFINE_integer('calls', 10, 'Timed calls a point.', lower_bound=1)
_PROCESSES = flags.DEFINE_integer('processes', 1, 'Share the devices of a point.', lower_bound=1)
_POINT = flags.DEFINE_integer('point', None, 'Measure this number of devices, in this process.')
_PROCESS = flags.DEFINE_integer('process_id', 0, 'Which of the --processes of a point this is.')
_ADDRESS = flags.DEFINE_string('coordinator_address', None, 'Of process 0 of a point.')


def main(argv):
    del argv
    if _POINT.value:
        if _PROCESSES.value > 1:
            distributed.initialize(
                'explicit', _ADDRESS.value, _PROCESSES.value, process_id=_PROCESS.value
            )
        for name, batch in (('weak', _WEAK.value * _POINT.value), ('strong', _STRONG.value)):
            print(json.dumps(measure(name, batch, _POINT.value)), flush=True)
        return
    first = {}
    for num_devices in numbers(_DEVICES.value):
        for line in run_point(num_devices):
            start = first.setdefault(line['name'], line)
            share = lambda line: line['images_per_second'] / line['num_devices']
            line['efficiency'] = share(line) / share(start)
            if line['platform'] == 'cpu':
                cost = lambda line: line['cpu_ms'] / line['batch_size']
                line['cpu_overhead'] = cost(line) / cost(start) - 1.0
            print(json.dumps(line), flush=True)


def numbers(words):
    try:
        counts = [int(word) for word in words]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise UserError(f'--devices must be numbers such as 1,2,4,8, got {",".join(words)!r}')
    if any(count % _PROCESSES.value for count in counts):
        raise UserError(
            f'--devices must divide over --processes={_PROCESSES.value}, got {",".join(words)}'
        )
    return counts


def run_point(num_devices):
    """The lines of processes with so many devices in all; of a CPU's, simulated."""
    flag = f'--xla_force_host_platform_device_count={num_devices // _PROCESSES.value}'
    environment = os.environ | {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {flag}'}
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        address = f'--coordinator_address=127.0.0.1:{listener.getsockname()[1]}'
    command = [sys.executable, pathlib.Path(__file__), *sys.argv[1:], f'--point={num_devices}']
    runs = [
        subprocess.Popen(
            [*command, address, f'--process_id={index}'],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(_PROCESSES.value)
    ]
    printed = [run.communicate()[0] for run in runs]
    for run in runs:
        if run.returncode:
            raise UserError(f'a process of {num_devices} devices ended with {run.returncode}')
    # All say the same, and what the runtime prints is not ours.
    return [json.loads(line) for line in printed[0].splitlines() if line.startswith('{')]


def measure(name, batch_size, num_devices):
    """Times the call of `parallel.compile_step`, on images of noise that lie on the devices."""
    config = dataclasses.replace(_CONFIG.value, batch_size=batch_size, num_chains=0)
    vaebm_config.validate(config)
    check_divides(config, num_devices)
    if jax.device_count() < num_devices:
        raise UserError(f'there are {jax.device_count()} devices, --devices has {num_devices}')
    devices = all_devices()[:num_devices]
    key = jax.random.key(config.seed, impl=config.generator)
    states = place_states(create_states(key, config), devices)
    size = config.data.load_size or config.data.image_size
    num_images = 4 * batch_size
    shape = (num_images, size, size, config.data.num_channels)
    gather = hold_images(np.random.default_rng(0).integers(0, 256, shape, np.uint8), devices)

    def images(first):
        steps = range(first, first + config.steps_per_call)
        return gather(np.stack([batch_indices(key, n, num_images, batch_size) for n in steps]))

    num_steps = config.steps_per_call
    call = compile_step(train_step, config, devices)
    compiled = call.lower(key, states, images(0), num_steps).compile()
    if _PROCESSES.value == 1:  # Else it would ask for the images of all processes.
        call = compiled
    times = []
    for turn in range(_CALLS.value + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        states, metrics = call(key, states, images(turn * num_steps), num_steps)
        jax.block_until_ready((states, metrics))
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    # The first one warms up.
    wall, cpu = (statistics.median(column) / num_steps for column in zip(*times[1:], strict=True))
    cpu = float(np.sum(multihost_utils.process_allgather(np.float64(cpu))))
    return {
        'name': name,
        'num_devices': num_devices,
        'num_processes': _PROCESSES.value,
        'batch_size': batch_size,
        'platform': devices[0].platform,
        'ms': 1e3 * wall,
        'cpu_ms': 1e3 * cpu,
        'steps_per_second': 1.0 / wall,
        'images_per_second': batch_size / wall,
        'all_reduce_bytes': hlo.all_reduce_bytes(compiled.as_text()),
    }


if __name__ == '__main__':
    program.run(main)
