import types

import jax
import numpy as np
import pytest
from helpers.devices import assert_close, run_on_devices

from vaebm_jax.config import Config
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training.parallel import check_divides, local_rows, split_rows


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


@pytest.mark.multi_device
@pytest.mark.parametrize('name', ['whole', 'hole', 'replay'])
def test_shard_map_in_place_of_pmap_gives_the_same_run(tmp_path, name):
    """Bit for bit: what JAX recommends for new code, and the day it drops pmap what is left."""
    pmap, shard_map = '2x1', '2x1-shard_map'
    results = run_on_devices(tmp_path, 5, 'float32', name, pmap, shard_map)
    assert results[pmap].keys() == results[shard_map].keys() and len(results[pmap]) > 20
    for leaf, values in results[pmap].items():
        np.testing.assert_array_equal(results[shard_map][leaf], values, err_msg=leaf)


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
        shares = split_rows(batches[:, local_rows(6, devices)], devices)
        if len(devices) == 1:
            assert shares.shape == batches.shape
            shares = shares[np.newaxis]
        assert shares.shape == (owners.count(process), 2, 6 // len(devices), 3)
        found.extend(shares)
    np.testing.assert_array_equal(np.concatenate(found, axis=1), batches)


def test_one_device_here():
    assert jax.device_count() == 1, 'the tests of several devices start processes of their own'
