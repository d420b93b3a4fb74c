"""Optimizers: gradients clipped by their own earlier size, against numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import create_states
from vaebm_jax.config import EnergyConfig
from vaebm_jax.models.create import clip_by_moment


def test_elements_are_clipped_to_three_deviations_and_a_limit():
    draws = np.random.default_rng(0).normal(size=(30, 4)) * np.array([0.01, 0.05, 1.0, 10.0])
    draws[20, 0] = 5.0
    tx = clip_by_moment(0.9, 0.1)
    state, clipped = tx.init({'w': jnp.zeros(4)}), []
    for grad in draws:
        updates, state = tx.update({'w': jnp.asarray(grad, jnp.float32)}, state)
        clipped.append(updates['w'])
    square, expected = np.zeros(4), []
    for t, grad in enumerate(draws, start=1):
        bound = 3.0 * np.sqrt(square / (1.0 - 0.9**t)) + 0.1
        expected.append(np.clip(grad, -bound, bound))
        square = 0.9 * square + 0.1 * expected[-1] ** 2
    np.testing.assert_allclose(clipped, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.abs(clipped[0])[2:], 0.1)  # At first only the limit.
    assert 0.1 < clipped[20][0] < 0.2


@pytest.mark.parametrize('scale', [1e2, 1e5])
def test_the_limit_is_in_units_of_the_energys_scale(tiny_config, scale):
    energy = EnergyConfig(reference_std=0.0, scale=scale, adam_b1=0.5, max_grad_element=0.1)
    config = dataclasses.replace(tiny_config, energy=energy)
    states = create_states(jax.random.key(0), config)
    gradient = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3.0 * scale), states.energy.params)
    _, (moments, _) = states.energy.advance(gradient, 0.0).opt_state
    for leaf in jax.tree.leaves(moments.mu):
        np.testing.assert_allclose(leaf / scale, 0.5 * 0.1, rtol=1e-5)
