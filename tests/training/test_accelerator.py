"""A GPU or TPU computes what the CPU beside it computes; skipped where there is none."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.run_on_devices import CONFIGS, fresh_states, train

from vaebm_jax.config import Config, DataConfig, cifar10_paper_network
from vaebm_jax.data.loading import load_images
from vaebm_jax.models.apply import energy_of
from vaebm_jax.samplers.keys import chain_keys, normal
from vaebm_jax.samplers.langevin import langevin_sample


@pytest.fixture(scope='module')
def devices():
    if jax.default_backend() == 'cpu':
        pytest.skip('there is no accelerator')
    return jax.devices('cpu')[:1], jax.devices()[:1]


@pytest.fixture(autouse=True)
def _full_products():
    """Accelerators shorten the factors of a float32 product to TF32 or bfloat16 unless told."""
    with jax.default_matmul_precision('highest'):
        yield


def on_each(devices, function, *arguments):
    """What the jitted function gives on the CPU and on the accelerator."""
    run = jax.jit(function)
    return [jax.device_get(run(*jax.device_put(arguments, device))) for (device,) in devices]


def assert_close(cpu, accelerator, tolerance):
    """Equal within a share of the largest number."""
    scale = np.abs(cpu).max(initial=1e-3)
    np.testing.assert_allclose(accelerator / scale, cpu / scale, rtol=0, atol=tolerance)


def test_noise(devices):
    draw = lambda key: normal(chain_keys(key, 100), (32, 32, 3))
    cpu, accelerator = on_each(devices, draw, jax.random.key(3))
    np.testing.assert_allclose(accelerator, cpu, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('convolution', ['auto', 'patches'])
@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-4), ('bfloat16', 3e-2)])
def test_chain_through_the_authors_network(devices, dtype, tolerance, convolution):
    """How far ten steps move images, and where to."""
    config = Config(
        dtype=dtype,
        convolution=convolution,
        data=DataConfig('cifar10', image_size=32, num_channels=3),
        network=dataclasses.replace(cifar10_paper_network(), init_std=0.0),
    )
    energy = fresh_states(config, 'float32').energy
    x = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)

    def motion(key, energy, x):
        revised, _ = langevin_sample(
            key, energy_of(energy, config), x, num_steps=10, step_size=0.006
        )
        return revised - x

    cpu, accelerator = on_each(devices, motion, jax.random.key(2), energy, x)
    assert_close(cpu, accelerator, tolerance)


@pytest.mark.parametrize('name', CONFIGS)
def test_raw_gradients(devices, name):
    """After one step of Adam with b1 = 0.5 the first moment is half the raw gradient."""
    config = CONFIGS[name]
    images, fresh = load_images(config.data), fresh_states(config, 'float32')
    results = [train(config, fresh, images, 1, device, 1)[0] for device in devices]
    moments = [
        {name: leaf for path, leaf in leaves if '.mu' in (name := jax.tree_util.keystr(path))}
        for leaves in map(jax.tree_util.tree_leaves_with_path, jax.device_get(results))
    ]
    assert len(moments[0]) > 10
    for name, leaf in moments[0].items():
        assert_close(leaf, moments[1][name], 1e-4)
