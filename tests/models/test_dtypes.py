"""JAX's own switches, strict promotion of types and 64 bits: neither changes a number."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers.commands import ROOT
from helpers.run_core import CONFIGS, arrays, sample, train_and_draw

_RUN_CORE = ROOT / 'tests' / 'helpers' / 'run_core.py'


def assert_same(results, expected):
    """Of the same types, and the same in every bit."""
    assert results.keys() == expected.keys()
    for name, array in expected.items():
        assert results[name].dtype == array.dtype, name
        np.testing.assert_array_equal(results[name], array, err_msg=name)


OF_DEFAULT = ('float32', 'center_hole')  # The other configs are for the slow tests.


@pytest.mark.parametrize(
    'compute, name',
    [
        *((train_and_draw, name) for name in CONFIGS if name in OF_DEFAULT),
        *(
            pytest.param(train_and_draw, name, marks=pytest.mark.slow)
            for name in CONFIGS
            if name not in OF_DEFAULT
        ),
        *((sample, dtype) for dtype in ('float32', 'bfloat16', 'float16')),
    ],
)
def test_strict_promotion_changes_nothing(compute, name):
    expected = arrays(compute(name))
    with jax.numpy_dtype_promotion('strict'):
        assert_same(arrays(compute(name)), expected)


@pytest.fixture(scope='module')
def by_bits(tmp_path_factory):
    """What the core computes without 64 bits and with them, each in a process of its own."""
    folder, results = tmp_path_factory.mktemp('bits'), []
    for allowed in ('0', '1'):
        environment = os.environ | {'JAX_ENABLE_X64': allowed, 'JAX_PLATFORMS': 'cpu'}
        command = [sys.executable, _RUN_CORE, folder / f'{allowed}.npz']
        subprocess.run(command, env=environment, check=True)
        with np.load(folder / f'{allowed}.npz') as file:
            results.append(dict(file))
    return results


@pytest.mark.slow
def test_64_bits_change_no_number(by_bits):
    narrow, wide = by_bits
    assert_same(wide, narrow)


@pytest.mark.slow
def test_64_bits_leave_states_as_they_are(by_bits):
    _, wide = by_bits
    types = {array.dtype for name, array in wide.items() if "'states'" in name}
    assert types == {np.dtype('float32'), np.dtype('int32')}
