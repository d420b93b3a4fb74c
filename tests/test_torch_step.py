"""benchmarks/torch_step.py, the peer: with our parameters it computes what we compute."""

import functools
import json
import sys

import jax
import numpy as np
import pytest
from helpers.commands import ROOT

from vaebm_jax import Batch, create_states, langevin_sample
from vaebm_jax import config as c
from vaebm_jax.methods.parts import update_energy
from vaebm_jax.models.apply import decode, energy_of

torch = pytest.importorskip('torch', reason='the peer is a PyTorch program')
sys.path.insert(0, str(ROOT / 'benchmarks'))
import torch_step  # noqa: E402

TRUNK = (('conv', 6, 3, 1), ('conv', 8, 4, 2), ('dense', 10))
CHAIN = dict(num_steps=4, step_size=0.3, noise_scale=0.0, max_drift=0.5)
CONFIG = c.Config(
    batch_size=3,
    num_chains=5,
    latent_dim=4,
    data=c.DataConfig('cifar10', image_size=8, num_channels=3),
    langevin=c.LangevinConfig(**CHAIN),
    energy=c.EnergyConfig(reference_std=0.5, adam_b1=0.5),
    network=c.NetworkConfig(
        energy=TRUNK,
        encoder=TRUNK,
        decoder=(('dense', 7), ('map', 16), ('up', 8, 3), ('conv', 8, 3)),
    ),
)


@pytest.fixture(scope='module')
def states():
    return create_states(jax.random.key(0), CONFIG)


@pytest.fixture(scope='module')
def step(states):
    """The peer, its parameters ours."""
    torch.set_num_threads(1)  # More of them wait for each other by spinning.
    step = torch_step.Step(json.loads(c.to_json(CONFIG)), 'float32', False, 'cpu')
    models = zip(step.models, (states.energy, states.encoder, states.decoder), strict=True)
    for model, state in models:
        parameters = zip(model.parameters(), as_theirs(state.params), strict=True)
        for theirs, ours in parameters:
            theirs.data.copy_(torch.tensor(ours))
    return step


def as_theirs(params):
    """The leaves of our parameters, or of their gradients, as the peer orders and shapes them."""
    params = jax.tree.map(np.asarray, params)
    if 'mean' in params:
        heads = params.pop('mean'), params.pop('log_variance')
        params['heads'] = jax.tree.map(lambda *pair: np.concatenate(pair, -1), *heads)
    is_decoder = 'image' in params
    order = ['Conv_0', 'Conv_1', 'Dense_0', 'energy' if 'energy' in params else 'heads']
    if is_decoder:
        order = ['Dense_0', 'Dense_1', 'GroupNorm_0', 'Conv_0', 'GroupNorm_1', 'Conv_1']
        order += ['GroupNorm_2', 'image']
    assert set(order) == set(params)
    for name in order:
        layer = params[name]
        kernel, bias = layer.get('kernel', layer.get('scale')), layer['bias']
        if is_decoder and name == 'Dense_1':  # To a map, there channels first.
            kernel, bias = (channels_first(x.reshape(-1, 4, 4, 16)) for x in (kernel, bias))
            kernel, bias = kernel.reshape(7, -1), bias.reshape(-1)
        elif is_decoder and name == 'Conv_0':  # Blocks: there channels first.
            kernel, bias = (
                channels_first(x.reshape(-1, 2, 2, 8)).reshape(x.shape) for x in (kernel, bias)
            )
        elif not is_decoder and name == 'Dense_0':  # From a map.
            kernel = channels_first(kernel.T.reshape(10, 4, 4, 8)).reshape(10, -1).T
        if kernel.ndim == 4:
            kernel = kernel.transpose(3, 2, 0, 1)
        yield kernel.T if kernel.ndim == 2 else kernel
        yield bias


def channels_first(x):
    return np.transpose(x, (0, 3, 1, 2))


def images(seed, count):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 8, 8, 3)).astype(np.float32)


def to_torch(x):
    return torch.tensor(channels_first(x)).contiguous(memory_format=torch.channels_last)


def assert_close(theirs, ours):
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5 * np.max(np.abs(ours)))


def test_chain(states, step):
    x, energy = images(0, 5), energy_of(states.energy, CONFIG)
    ours, _ = langevin_sample(jax.random.key(1), energy, x, **CHAIN)
    assert np.max(np.abs(ours - x)) > 0.1
    assert_close(step.chain(to_torch(x)), channels_first(np.asarray(ours)))


def test_gradients_of_the_energy(states, step):
    data, samples = images(2, 3), images(3, 5)
    update = jax.jit(functools.partial(update_energy, config=CONFIG))
    after, _ = update(states.energy, Batch(data), Batch(samples))
    # The first moment after one step of Adam is half the gradient.
    is_adam = lambda part: hasattr(part, 'mu')
    (moment,) = filter(is_adam, jax.tree.leaves(after.opt_state, is_leaf=is_adam))
    step.batch = to_torch(data)
    step.update_energy(to_torch(samples))
    theirs = [parameter.grad for parameter in step.models[0].parameters()]
    for grad, half in zip(theirs, as_theirs(moment.mu), strict=True):
        ours = 2 * half
        if np.any(ours):
            assert_close(grad, ours)


def test_encoder_and_decoder(states, step):
    z = np.random.default_rng(4).normal(size=(5, 4)).astype(np.float32)
    decoded = jax.jit(decode)(states.decoder, z)
    with torch.no_grad():
        assert_close(step.decoder(torch.tensor(z)), channels_first(np.asarray(decoded)))
        theirs, _ = step.encoder(to_torch(images(5, 5)))
    mean, _ = jax.jit(states.encoder.apply_fn)({'params': states.encoder.params}, images(5, 5))
    assert_close(theirs, mean)
