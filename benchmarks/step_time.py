"""Times the training step and its parts, with --peer=torch also PyTorch's.

    python benchmarks/step_time.py --config=configs/cifar10.py --batch_size=64 --peer=torch

One JSON line per variant: `ms` of wall time (devices synchronized), `cpu_ms` over all threads,
medians of --turns rounds in which each variant is timed once; `images_per_second` by wall time;
`peak_bytes` by the compiler's analysis. The variants are

    chain          the Langevin chain
    energy, vae    the two updates
    step           the complete step, input included
    input          the host's work for a step: the order of the images, and gathering them
    compile        the step: `ms` without, `cached_ms` with the compilation cache
    floor          the step's products, counted from shapes, at the best rate of a plain matrix
                   product in this run
    torch_...      the same parts in PyTorch, eager and by torch.compile; on a GPU each also as a
                   CUDA graph

and last, with a peer, `ratio` and `ratio_chain`: the best peer's time divided by ours, above 1 we
are faster; CPU time on a CPU, wall time on an accelerator. PyTorch runs in a separate process, with
--peer_python if this Python does not have it. If the processor has no bfloat16 products, the peer
of --dtype=bfloat16 is the faster of PyTorch's two precisions.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import operations
import program
from absl import flags
from ml_collections import config_flags

from vaebm_jax import Batch, create_states, langevin_sample, train_step
from vaebm_jax import config as vaebm_config
from vaebm_jax.data.order import batch_indices
from vaebm_jax.methods.parts import update_energy, update_vae
from vaebm_jax.models.apply import energy_of
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.keys import chain_keys
from vaebm_jax.training.parallel import bytes_needed, compile_step, hold_images, place_states

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/cifar10.py', 'The experiment.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 0, "In place of the config's; chains as well.")
_DTYPE = flags.DEFINE_enum('dtype', None, ['float32', 'bfloat16'], "In place of the config's.")
_PEER = flags.DEFINE_enum('peer', None, ['torch'], 'What to compare with.')
_PEER_PYTHON = flags.DEFINE_string('peer_python', sys.executable, 'A Python that has PyTorch.')
_TURNS = flags.DEFINE_integer('turns', 5, 'How often each is timed.', lower_bound=1)

PARTS = ('chain', 'energy', 'vae', 'step')
NUM_IMAGES = 50_000


def main(argv):
    del argv
    config = _CONFIG.value
    config = dataclasses.replace(config, dtype=_DTYPE.value or config.dtype, steps_per_call=1)
    if _BATCH_SIZE.value:
        config = dataclasses.replace(config, batch_size=_BATCH_SIZE.value, num_chains=0)
    vaebm_config.validate(config)

    say = lambda line: print(json.dumps(line), flush=True)
    ours, compile_line, peak_bytes = our_parts(config)
    peers = {name: TorchPeer(config, *setting) for name, setting in peer_settings(config).items()}
    turns = {name: {part: [] for part in runs} for name, runs in (('', ours),)}
    turns |= {name: {part: [] for part in PARTS} for name in peers}
    for turn in range(_TURNS.value + 1):
        for part, run in ours.items():
            result = timed(run)
            if turn:  # The first one warms up.
                turns[''][part].append(result)
        for name, peer in peers.items():
            for part in PARTS:
                result = peer.run(part)
                if turn:
                    turns[name][part].append(result)

    times = {
        (name, part): [statistics.median(column) for column in zip(*results, strict=True)]
        for name, parts in turns.items()
        for part, results in parts.items()
    }
    for (name, part), (wall, cpu) in times.items():
        line = {'name': f'{name}_{part}' if name else part, 'ms': wall, 'cpu_ms': cpu}
        line['images_per_second'] = 1e3 * config.batch_size / wall
        if not name:
            line['peak_bytes'] = peak_bytes.get(part)
        say(line)
    say(compile_line)
    say(floor(config))
    if peers:
        say(ratios(times, peers))


def timed(run):
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def our_parts(config):
    """Each part as a call without arguments, the line on compilation, and bytes by part."""
    key = jax.random.key(config.seed, impl=config.generator)
    device = jax.devices()[:1]
    num_chains = config.num_chains or config.batch_size
    shape = (config.data.image_size, config.data.image_size, config.data.num_channels)
    states = place_states(create_states(key, config), device)
    data, samples = (
        jax.random.uniform(jax.random.key(seed), (count, *shape), minval=-1.0)
        for seed, count in ((1, config.batch_size), (2, num_chains))
    )
    keys = chain_keys(key, num_chains)

    def chain(states, x):
        return langevin_sample(
            keys,
            energy_of(states.energy, config),
            x,
            num_steps=config.langevin.num_steps,
            step_size=config.langevin.step_size,
            noise_scale=config.langevin.noise_scale,
            max_drift=config.langevin.max_drift,
            max_element_drift=config.langevin.max_element_drift,
        )

    def energy(states, x):
        return update_energy(states.energy, Batch(data), Batch(x), config)

    def vae(states, x):
        return update_vae(keys, keys, states.encoder, states.decoder, x, None, config)

    parts, peak_bytes = {}, {}
    for part in (chain, energy, vae):
        compiled = jax.jit(part).lower(states, samples).compile()
        parts[part.__name__] = functools.partial(compiled, states, samples)
        peak_bytes[part.__name__] = bytes_needed(compiled)

    pixels = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, *shape), np.uint8)
    gather = hold_images(pixels, device)
    numbers = iter(range(10**9))

    def images():
        step = next(numbers)
        return gather(batch_indices(key, step, NUM_IMAGES, config.batch_size)[None])

    lower = lambda: compile_step(train_step, config, device).lower(key, states, images(), 1)
    step, compile_line = compiled_twice(lower)
    held = [states]

    def whole():
        held[0], metrics = step(key, held[0], images(), 1)
        return held[0], metrics

    # The parts above keep these states; the step donates its own.
    held[0] = place_states(jax.tree.map(jnp.copy, states), device)
    parts |= {'step': whole, 'input': images}
    peak_bytes['step'] = bytes_needed(step)
    return parts, compile_line, peak_bytes


def compiled_twice(lower):
    """Compiles with an empty cache, and again with what it then holds."""
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update('jax_compilation_cache_dir', cache)
        seconds = []
        for _ in range(2):
            jax.clear_caches()
            start = time.perf_counter()
            compiled = lower().compile()
            seconds.append(time.perf_counter() - start)
        jax.config.update('jax_compilation_cache_dir', None)
    return compiled, {'name': 'compile', 'ms': 1e3 * seconds[0], 'cached_ms': 1e3 * seconds[1]}


def floor(config):
    """The step's products at the rate of the best matrix product."""
    dtype = jnp.dtype(config.dtype)
    product = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type=jnp.float32))
    sizes = ((4096, 1024, 512), (4096, 2048, 256), (16384, 512, 128))
    if jax.default_backend() != 'cpu':
        # Those take less than the dispatch does.
        sizes = ((8192, 8192, 8192),)
    best = [math.inf, math.inf]
    for rows, inner, columns in sizes:
        run = functools.partial(
            product, jnp.ones((rows, inner), dtype), jnp.ones((inner, columns), dtype)
        )
        timed(run)
        results = [timed(run) for _ in range(5)]
        size = 2 * rows * inner * columns
        best = [
            min(a, min(column) / size)
            for a, column in zip(best, zip(*results, strict=True), strict=True)
        ]
    count = operations.count(config)
    line = {'name': 'floor', 'flops': count, 'ms': count * best[0], 'cpu_ms': count * best[1]}
    return line | {'gflops_per_second': 1e-6 / best[0], 'gflops_per_cpu_second': 1e-6 / best[1]}


def bfloat16_flags():
    """Those of this processor's flags that mean products of bfloat16."""
    try:
        text = pathlib.Path('/proc/cpuinfo').read_text()
    except OSError:
        return []
    return sorted({'amx_bf16', 'avx512_bf16'} & set(text.split()))


def peer_settings(config):
    if not _PEER.value:
        return {}
    dtypes = {config.dtype}
    if jax.default_backend() == 'cpu' and not bfloat16_flags():
        dtypes.add('float32')
    modes = {'eager': (), 'compile': ('--compile',)}
    if jax.default_backend() != 'cpu':
        modes |= {'graphs': ('--graphs',), 'compile_graphs': ('--compile', '--graphs')}
    return {
        f'torch_{dtype}_{mode}': (dtype, options)
        for dtype in sorted(dtypes)
        for mode, options in modes.items()
    }


class TorchPeer:
    """torch_step.py in a process of its own, asked for one part at a time."""

    def __init__(self, config, dtype, options):
        command = [_PEER_PYTHON.value, str(pathlib.Path(__file__).with_name('torch_step.py'))]
        command += ['--config', vaebm_config.to_json(config), '--dtype', dtype]
        command += ['--device', 'cpu' if jax.default_backend() == 'cpu' else 'cuda']
        command += ['--threads', str(len(os.sched_getaffinity(0)))]
        # Threads that spin while they wait would count as CPU time.
        environment = os.environ | {'OMP_WAIT_POLICY': 'passive', 'PYTHONPATH': ''}
        self.process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise UserError(f'the PyTorch peer ended; can {_PEER_PYTHON.value} import torch?')
        return json.loads(line)

    def run(self, part):
        print(part, file=self.process.stdin, flush=True)
        answer = self.answer()
        return answer['ms'], answer['cpu_ms']


def ratios(times, peers):
    best = lambda part, column: min(times[name, part][column] for name in peers)
    column = 1 if jax.default_backend() == 'cpu' else 0
    line = {'name': 'ratio', 'bfloat16_flags': bfloat16_flags(), 'jax': jax.__version__}
    for suffix, part in (('', 'step'), ('_chain', 'chain')):
        line[f'ratio{suffix}'] = best(part, column) / times['', part][column]
        line[f'ratio{suffix}_wall'] = best(part, 0) / times['', part][0]
    return line


if __name__ == '__main__':
    program.run(main)
