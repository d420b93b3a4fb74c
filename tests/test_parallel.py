import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from vaebm_jax.config import Config
from vaebm_jax.errors import UserError
from vaebm_jax.parallel import check_divides, own_rows, split_rows

SCRIPT = pathlib.Path(__file__).with_name('run_on_devices.py')
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
    subprocess.run([sys.executable, SCRIPT, *arguments], env=environment, check=True)
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
        # Images are of 32 bits whatever JAX's switch, and so is their own part of a metric.
        within = max(tolerance, 1e-6) if 'spread' in name else tolerance
        for other in others:
            np.testing.assert_allclose(
                other[name] / scale, first[name] / scale, rtol=0, atol=within, err_msg=name
            )


@pytest.mark.multi_device
def test_raw_gradients_do_not_depend_on_the_number_of_devices(tmp_path):
    results = run_on_devices(tmp_path, 1, 'float32', 'whole', '1x1', '2x1', '4x1', '8x1')
    # After one step of Adam with b1 = 0.5 the first moment is half the raw gradient.
    assert_close(results, select='.mu', tolerance=1e-5)


@pytest.mark.multi_device
def test_twenty_steps_do_not_depend_on_devices_nor_on_steps_per_call(tmp_path):
    runs = ('1x1', '2x1', '4x1', '8x1', '1x7', '2x7')
    results = run_on_devices(tmp_path, 20, 'float64', 'whole', *runs)
    assert_close(results, select='', tolerance=1e-10)


@pytest.mark.multi_device
def test_nor_do_conditional_models(tmp_path):
    results = run_on_devices(tmp_path, 2, 'float64', 'hole', '1x1', '4x1')
    # Two steps, and moments rather than parameters: the energy has gradients that are 0 but for
    # rounding, of which Adam makes steps.
    assert_close(results, select='.mu', tolerance=1e-6)


@pytest.mark.multi_device
def test_nor_does_what_an_energy_keeps_beside_its_parameters(tmp_path):
    results = run_on_devices(tmp_path, 3, 'float64', 'known z', '1x1', '2x3')
    assert_close(results, select='', tolerance=1e-6)
    assert any('extra' in name for name in results['1x1'])


def test_sizes_that_do_not_divide_are_refused_by_name():
    check_divides(Config(batch_size=16, num_chains=0), 8)
    with pytest.raises(UserError, match='batch_size must divide over 4 devices, got 10; num_chain'):
        check_divides(Config(batch_size=10, num_chains=6), 4)


@pytest.mark.parametrize('owners', [[0], [0, 0, 0], [0, 1, 2], [0, 1, 1, 1, 1, 2]])
def test_the_processes_shares_are_the_batch_in_its_order(monkeypatch, owners):
    """Of one process, of one device each, and of different numbers of devices."""
    devices = [types.SimpleNamespace(process_index=owner) for owner in owners]
    batches = np.arange(2 * 6 * 3).reshape(2, 6, 3)
    found = []
    for process in sorted(set(owners)):
        monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
        shares = split_rows(batches[:, own_rows(6, devices)], devices)
        if len(devices) == 1:
            assert shares.shape == batches.shape
            shares = shares[np.newaxis]
        assert shares.shape == (owners.count(process), 2, 6 // len(devices), 3)
        found.extend(shares)
    np.testing.assert_array_equal(np.concatenate(found, axis=1), batches)


def test_one_device_here():
    assert jax.device_count() == 1, 'the tests of several devices start processes of their own'
