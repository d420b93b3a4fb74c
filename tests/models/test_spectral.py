"""Kernels divided by their largest singular value, against NumPy's decomposition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import create_states
from vaebm_jax.config import EnergyConfig, NetworkConfig
from vaebm_jax.models import spectral
from vaebm_jax.models.apply import energy_of


def largest(kernel):
    return np.linalg.svd(np.asarray(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)[0]


def trees(seed=0):
    draw = np.random.default_rng(seed).normal
    return {
        'conv': {'kernel': draw(size=(3, 3, 2, 5)), 'bias': draw(size=5)},
        'inner': {'dense': {'kernel': draw(size=(7, 4))}},
        'energy': {'kernel': draw(size=(6, 1)), 'bias': draw(size=1)},
    }


def params(seed=0):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), trees(seed))


@pytest.mark.parametrize('norm', [1.0, 1.7])
def test_the_largest_singular_value(norm):
    after = spectral.normalize(params(), spectral.start(params()), norm)
    assert jax.tree.structure(after) == jax.tree.structure(params())
    for path, before in (('conv', params()['conv']), ('energy', params()['energy'])):
        np.testing.assert_allclose(largest(after[path]['kernel']), norm, rtol=1e-3)
        expected = norm * before['kernel'] / largest(before['kernel'])
        np.testing.assert_allclose(after[path]['kernel'], expected, rtol=1e-3)
        np.testing.assert_array_equal(after[path]['bias'], before['bias'])
    np.testing.assert_allclose(largest(after['inner']['dense']['kernel']), norm, rtol=1e-3)


def test_an_iteration_nears_the_singular_vector():
    kernel = params()['inner']['dense']['kernel']
    u = {
        'inner/dense/kernel': jnp.ones(4),
        'conv/kernel': jnp.ones(5),
        'energy/kernel': jnp.ones(1),
    }
    right = np.linalg.svd(np.asarray(kernel))[2][0]
    angles = []
    for _ in range(6):
        u = spectral.iterate(params(), u)
        assert float(jnp.linalg.norm(u['inner/dense/kernel'])) == pytest.approx(1.0, rel=1e-6)
        angles.append(1.0 - abs(float(u['inner/dense/kernel'] @ right)))
    assert angles == sorted(angles, reverse=True) and angles[-1] < 0.1 * angles[0]


def test_twice_the_kernels_are_the_same_kernels():
    once = spectral.normalize(params(), spectral.start(params()))
    double = jax.tree.map(lambda leaf: 2.0 * leaf if leaf.ndim > 1 else leaf, params())
    twice = spectral.normalize(double, spectral.start(double))
    for one, two in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5)


def test_gradient():
    """Of a function of `W / value`; nothing is gained along W itself, which leaves it as it is."""
    weights = {'w': params()['conv']['kernel']}
    u = spectral.start(weights)
    for _ in range(300):
        u = spectral.iterate(weights, u)
    target = jnp.asarray(np.random.default_rng(3).normal(size=weights['w'].shape), jnp.float32)
    loss = lambda weights: jnp.sum(target * spectral.normalize(weights, u)['w'])
    gradient = jax.grad(loss)(weights)['w']
    assert abs(float(jnp.vdot(gradient, weights['w']))) < 1e-4

    exact = lambda w: np.sum(np.asarray(target) * w / largest(w))
    w, step = np.asarray(weights['w'], np.float64), 1e-4
    for index in ((0, 0, 0, 0), (2, 1, 1, 4), (1, 2, 0, 3)):
        up, down = w.copy(), w.copy()
        up[index] += step
        down[index] -= step
        expected = (exact(up) - exact(down)) / (2 * step)
        assert float(gradient[index]) == pytest.approx(expected, rel=1e-2, abs=1e-4)


def test_a_dense_energy_is_no_steeper_than_its_norms(tiny_config):
    """|f(x) - f(y)| <= norm³ |x - y| through two rows and the last layer, leaky_relu's slope 1."""
    table = (('dense', 32), ('dense', 32))
    config = dataclasses.replace(
        tiny_config,
        energy=EnergyConfig(reference_std=0.0, scale=10.0, spectral_norm=1.5),
        network=NetworkConfig(energy=table, encoder=table, decoder=table),
    )
    energy = create_states(jax.random.key(0), config).energy
    wild = jax.tree.map(lambda leaf: 50.0 * leaf, energy.params)
    draw = np.random.default_rng(0).uniform
    x, y = (jnp.asarray(draw(-1, 1, (200, 8, 8, 1)), jnp.float32) for _ in range(2))
    energy_fn = energy_of(energy.replace(params=wild), config)
    slope = np.abs(energy_fn(x) - energy_fn(y)) / np.linalg.norm((x - y).reshape(200, -1), axis=1)
    assert 0.01 < slope.max() / 10.0 <= 1.5**3
