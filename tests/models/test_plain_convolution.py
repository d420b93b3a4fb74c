"""The setting `convolution`: other forms in place of the package's own, the same numbers."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configs import U_NET

from vaebm_jax import Batch, create_states, energy_fn, generate, load, train_step
from vaebm_jax.config import ConditionConfig, Config, LangevinConfig, NetworkConfig
from vaebm_jax.models.convolution import FORMS
from vaebm_jax.training.loop import train

KEY = jax.random.key(0)


def config_of(convolution, kind='none', dtype='float32'):
    """Layers wide enough for Winograd's form."""
    trunk = (('conv', 16, 3, 1), ('conv', 16, 4, 2))
    return Config(
        num_steps=2,
        batch_size=4,
        latent_dim=4,
        sample_every=0,
        dtype=dtype,
        convolution=convolution,
        langevin=LangevinConfig(num_steps=2),
        condition=ConditionConfig(kind),
        network=NetworkConfig(
            energy=trunk,
            encoder=trunk,
            decoder=(('map', 16), ('up', 16, 3)) if kind == 'none' else U_NET,
            activation='silu',  # A leaky ReLU has a form of its own on a TPU.
        ),
    )


def batch_of(kind):
    images = jnp.asarray(np.tanh(np.random.default_rng(0).normal(size=(4, 8, 8, 1))))
    mask = jnp.ones_like(images).at[:, 2:6, 2:6].set(0.0)
    is_whole = kind == 'none'
    return Batch(images, None if is_whole else jnp.concatenate([images * mask, mask], axis=-1))


def counts_of(function, *args):
    """How often each primitive is in a function's jaxpr, at any depth."""
    counts = {}

    def count(jaxpr):
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            counts[name] = counts.get(name, 0) + 1
            for inner in jax.tree.leaves(list(equation.params.values())):
                if isinstance(inner, (jax.extend.core.ClosedJaxpr, jax.extend.core.Jaxpr)):
                    count(getattr(inner, 'jaxpr', inner))

    count(jax.make_jaxpr(function)(*args).jaxpr)
    return counts


def own_forms(function, *args):
    counts = counts_of(function, *args)
    assert counts['conv_general_dilated'] > 0
    return counts.get('platform_index', 0) + counts.get('custom_vjp_call', 0)


@pytest.mark.parametrize('kind', ['none', 'center_hole'])
def test_plain_is_xlas_own_in_the_chain_and_in_every_update(kind):
    for convolution, has_own in (('auto', True), ('plain', False)):
        config = config_of(convolution, kind)
        states, batch = create_states(KEY, config), batch_of(kind)
        step = lambda states, batch, config=config: train_step(KEY, states, batch, config)
        assert bool(own_forms(step, states, batch)) == has_own
        if kind == 'none':
            draw = lambda states, config=config: generate(KEY, states, config, 2)
            assert bool(own_forms(draw, states)) == has_own


@pytest.mark.slow
def test_a_step_and_samples_are_the_same_but_for_rounding():
    with jax.enable_x64(True):
        double = lambda leaf: leaf.astype('float64') if leaf.dtype == 'float32' else leaf
        results = []
        for config in map(config_of, FORMS):
            states = jax.tree.map(double, create_states(KEY, config))
            step = jax.jit(functools.partial(train_step, KEY, config=config))
            after, metrics = step(states, batch_of('none'))
            drawn = generate(KEY, after, config, 2)
            results.append([jax.tree.leaves(tree) for tree in (states, after, metrics, drawn)])
        ours, *others = results
        for other in others:
            chex.assert_trees_all_equal(ours[0], other[0])
            chex.assert_trees_all_close(ours, other, rtol=1e-9, atol=1e-12)


def test_in_bfloat16_too():
    energies = []
    for convolution in FORMS:
        config = config_of(convolution, dtype='bfloat16')
        energy = energy_fn(create_states(KEY, config), config, ema=False)
        energies.append(energy(batch_of('none').image.astype(jnp.float32)))
    for other in energies[1:]:
        np.testing.assert_allclose(other, energies[0], rtol=0.02)


def test_a_run_is_read_and_goes_on_with_the_other(tmp_path):
    config = config_of('auto')
    train(config, tmp_path)
    plain = dataclasses.replace(config, convolution='plain', num_steps=3)
    states, _ = load(tmp_path, config=plain)
    assert not own_forms(energy_fn(states, plain), batch_of('none').image)
    assert own_forms(energy_fn(*load(tmp_path)), batch_of('none').image)
    assert int(train(plain, tmp_path).step) == 3
