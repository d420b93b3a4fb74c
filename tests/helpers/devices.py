"""Training on simulated devices."""

import os
import subprocess
import sys

import numpy as np

from helpers.commands import ROOT

# For processes that compile much and compute little.
QUICK = {
    'JAX_PLATFORMS': 'cpu',
    # Compiles in less than half the time. Rounding differs: compare only what was compiled alike.
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    # jax 0.10 aborts where many simulated devices share two cores.
    'NPROC': '8',
}


def run_on_devices(folder, num_steps, dtype, name, *runs):
    """What training gave on so many devices, with so many steps a call: `{run: {name: array}}`."""
    environment = os.environ | QUICK | {'XLA_FLAGS': '--xla_force_host_platform_device_count=8'}
    arguments = [str(folder), str(num_steps), dtype, name, *runs]
    command = [sys.executable, '-m', 'helpers.run_on_devices', *arguments]
    subprocess.run(command, cwd=ROOT / 'tests', env=environment, check=True)
    results = {}
    for run in runs:
        with np.load(folder / f'{run}.npz') as arrays:
            results[run] = dict(arrays)
        late = results[run].pop('late_compilations')
        assert late == 0, f'only the first call may compile, {late} events later in {run}'
    return results


def assert_close(results, select, tolerance):
    first, *others = results.values()
    names = [name for name in first if select in name]
    assert len(names) > 10
    for name in names:
        scale = np.abs(first[name]).max(initial=1e-3)
        # Images are of 32 bits whatever JAX's switch, and so are the sums of all their squares.
        within = max(tolerance, 5e-6) if 'spread' in name else tolerance
        for other in others:
            np.testing.assert_allclose(
                other[name] / scale, first[name] / scale, rtol=0, atol=within, err_msg=name
            )
