"""Times the training step under each option for a GPU alone, and with all that won together.

    python benchmarks/gpu_options.py --config=configs/cifar10.py:paper --dtype=bfloat16 \
        --seconds=180

Each option runs in a process of its own, since XLA reads its flags once; one that this XLA does not
know, or that crashes, is a line with `failed`. The options are OPTIONS below; --only=plain,patches
chooses, --xla=force_conv_nhwc=true adds one, and none begins that would not end within --seconds.
--out gets options.jsonl, options.md, a table, and options.log, what the processes said. Per option
one JSON line:

    ms                  of a step, the mean of the best two of --calls calls of --steps steps
    images_per_second
    peak_share          of the card's bfloat16 peak, from the operations that the shapes need
    kernels, busy_ms, idle_share    a step's, from a trace of three (kernels.py)
    losses              of the first step
    difference          the largest of those from the plain run's, as a share; absent for options
                        with other numbers: another batch, another generator
    is_equal            whether that is within rounding, 5 % in bfloat16 and 1 % in float32
    compile_seconds     with the kernels chosen by the runs before, which share a cache

`together` has the options that are equal and took at least 1 % off the plain step.
"""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import jax
import kernels
import numpy as np
import operations
import program
from absl import flags

from vaebm_jax.runtime.errors import UserError


class Option(NamedTuple):
    """What is added to XLA's flags, and to this program's for the process that measures."""

    xla: dict[str, str] = {}
    flags: tuple[str, ...] = ()
    has_same_losses: bool = True


OPTIONS = {
    'plain': Option(),
    'patches': Option(flags=('--config.convolution=patches',)),
    'plain_again': Option(),  # Its difference from the first is the noise.
    'graphs': Option({'enable_command_buffer': '+CONVOLUTION,+WHILE'}),
    'conv_fusion': Option({'experimental_enable_conv_fusion': 'true'}),
    'unroll_2': Option({'enable_while_loop_double_buffering': 'true'}),
    'rbg': Option(flags=('--config.generator=rbg',), has_same_losses=False),
    'nchw': Option({'force_conv_nchw': 'true'}),
    **{
        f'batch_{size}': Option(flags=(f'--batch_size={size}',), has_same_losses=False)
        for size in (64, 256, 1024, 128, 512)
    },
    'triton': Option({'experimental_enable_fusion_block_level_rewriter': 'true'}),
    'unroll_all': Option({'enable_while_loop_unrolling': 'WHILE_LOOP_UNROLLING_FULL_UNROLL'}),
}

PEAKS = {  # Dense bfloat16 products a second, by a part of the device's name; the first that fits.
    'H100 PCIe': 756e12,
    'H100 NVL': 835e12,
    'H100': 989e12,
    'H200': 989e12,
    'A100': 312e12,
}
TOLERANCES = {'float32': 0.01, 'bfloat16': 0.05}
LOSSES = ('energy_data', 'energy_samples', 'rate', 'distortion')

_ONLY = flags.DEFINE_list('only', list(OPTIONS), 'The options to time, in this order.')
_XLA = flags.DEFINE_multi_string('xla', [], 'NAME=VALUE: also time --xla_gpu_NAME=VALUE.')
_SECONDS = flags.DEFINE_integer('seconds', 900, 'For all options.', lower_bound=1)
_OUT = flags.DEFINE_string('out', 'gpu_options', 'The folder of the results.')
_STEPS = flags.DEFINE_integer('steps', 10, 'Of a call.', lower_bound=kernels.STEPS)
_CALLS = flags.DEFINE_integer('calls', 4, 'Timed calls.', lower_bound=2)
_MEASURE = flags.DEFINE_bool('measure', False, 'Time the step in this process, with these flags.')


def main(argv):
    del argv
    config = kernels.chosen_config(_STEPS.value)
    if _MEASURE.value:
        print(json.dumps(measured(config)), flush=True)
        return
    if unknown := [name for name in _ONLY.value if name not in OPTIONS]:
        raise UserError(f'--only has {unknown[0]!r}; the options are {", ".join(OPTIONS)}')
    if wrong := [text for text in _XLA.value if '=' not in text]:
        raise UserError(f'--xla is NAME=VALUE, got {wrong[0]!r}')
    options = {name: OPTIONS[name] for name in _ONLY.value}
    options |= {text: Option(dict([text.split('=', 1)])) for text in _XLA.value}
    out = pathlib.Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    lines, durations, end = {}, [0.0], time.monotonic() + _SECONDS.value

    def add(name, option):
        start = time.monotonic()
        line = lines[name] = {'option': name}
        # Time for the option itself, and for `together`.
        if start + (1 if name == 'together' else 2) * statistics.median_high(durations) > end:
            line['failed'] = 'no time'
        else:
            line |= run_option(option, end - start, out / 'options.log')
            durations.append(time.monotonic() - start)
        if option.has_same_losses and 'losses' in line and 'losses' in lines.get('plain', {}):
            line['difference'] = difference(line['losses'], lines['plain']['losses'])
            line['is_equal'] = line['difference'] <= TOLERANCES[config.dtype]
        with (out / 'options.jsonl').open('a') as file:
            print(json.dumps(line), file=file)
        print(json.dumps(line), flush=True)
        (out / 'options.md').write_text(table(lines))

    with tempfile.TemporaryDirectory() as cache:
        # XLA keeps there which kernels it chose; the options share them.
        os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', cache)
        for name, option in options.items():
            add(name, option)
        winners = [options[name] for name in winners_of(lines) if options[name] != Option()]
        if len(winners) > 1:
            add('together', joined(winners))
    print(table(lines), end='')


def run_option(option, seconds, log):
    """What a process with the option measures, or why it failed."""
    added = ' '.join(f'--xla_gpu_{name}={value}' for name, value in option.xla.items())
    xla_flags = f'{os.environ.get("XLA_FLAGS", "")} {added}'.strip()
    with log.open('a') as file:
        print(f'== {xla_flags} {" ".join(option.flags)}', file=file, flush=True)
        try:
            done = subprocess.run(
                [sys.executable, *sys.argv, *option.flags, '--measure'],
                env=os.environ | {'XLA_FLAGS': xla_flags, 'JAX_TRACEBACK_FILTERING': 'off'},
                timeout=seconds,
                capture_output=True,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return {'failed': f'not done in {seconds:.0f} s'}
        file.write(done.stderr)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ['']
        # XLA's refusal of a value is followed by all its flags.
        reason = next((line for line in said if re.match(r'F\d', line)), said[-1])
        return {'failed': f'status {done.returncode}: {reason[:200]}'}
    return json.loads(done.stdout.splitlines()[-1])


def measured(config):
    start = time.perf_counter()
    run, _ = kernels.step_of(config)
    compile_seconds = time.perf_counter() - start
    metrics = run(1)
    losses = {name: float(metrics[name]) for name in LOSSES if name in metrics}
    run()
    calls = []
    for _ in range(_CALLS.value):
        start = time.perf_counter()
        run()
        calls.append(time.perf_counter() - start)
    seconds = sum(sorted(calls)[:2]) / 2 / _STEPS.value
    use = kernels.use_of(*kernels.traced(lambda: run(kernels.STEPS)))
    device = jax.devices()[0].device_kind
    peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    rate = operations.count(config) / seconds
    return {
        **use,
        'ms': 1e3 * seconds,
        'images_per_second': config.batch_size / seconds,
        'tflops_per_second': rate / 1e12,
        'peak_share': rate / peak if peak else None,
        'losses': losses,
        'compile_seconds': compile_seconds,
        'device': device,
        'jax': jax.__version__,
    }


def difference(losses, plain):
    """The largest, as a share; NaN if any is."""
    return float(np.max([abs(losses[name] / plain[name] - 1.0) for name in plain]))


def winners_of(lines):
    """The options that took at least 1 % off the plain step and changed nothing else."""
    plain = lines.get('plain', {}).get('ms', 0.0)
    return [
        name for name, line in lines.items() if line.get('is_equal') and line['ms'] < 0.99 * plain
    ]


def joined(options):
    xla = {name: value for option in options for name, value in option.xla.items()}
    return Option(xla, tuple(flag for option in options for flag in option.flags))


def table(lines):
    """Of Markdown."""
    rows = ['| option | ms | images/s | share of peak | kernels | idle | difference |']
    rows.append('|' + '---|' * 7)
    for name, line in lines.items():
        if 'failed' in line:
            rows.append(f'| {name} | {line["failed"].replace("|", "/")} | | | | | |')
            continue
        share, change = (line.get(key) for key in ('peak_share', 'difference'))
        rows.append(
            f'| {name} | {line["ms"]:.2f} | {line["images_per_second"]:,.0f} '
            f'| {"" if share is None else f"{share:.1%}"} | {line["kernels"]:.0f} '
            f'| {line["idle_share"]:.1%} | {"" if change is None else f"{change:.1e}"} |'
        )
    return '\n'.join(rows) + '\n'


if __name__ == '__main__':
    program.run(main)
