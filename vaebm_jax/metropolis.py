"""Langevin dynamics with a Metropolis test: it samples exp(-U) exactly, at any step size."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from vaebm_jax import keys as draws
from vaebm_jax.langevin import EnergyFn, langevin_step

EnergyAndGradient = tuple[chex.Array, chex.Array]


class Point(NamedTuple):
    """Where chains stand, and what is known there, so that a step costs one gradient.

    Attributes:
      x: `[B, ...]`.
      energy: U(x), `[B]` nats.
      gradient: ∇U(x), `[B, ...]`.
    """

    x: chex.Array
    energy: chex.Array
    gradient: chex.Array


def point_at(energy_fn: EnergyFn, x: chex.Array) -> Point:
    """Evaluates an energy and its gradient at `x`, `[B, ...]`."""
    energy, pull_back = jax.vjp(energy_fn, x)
    chex.assert_shape(energy, (x.shape[0],))
    (gradient,) = pull_back(jnp.ones_like(energy))
    return Point(x, energy, gradient)


def mala_step(
    keys: chex.PRNGKey,
    energy_fn: EnergyFn,
    point: Point,
    step_size: chex.Numeric,
    view: Callable[[Point], EnergyAndGradient] = lambda point: (point.energy, point.gradient),
) -> tuple[Point, chex.Array]:
    """One Metropolis-adjusted Langevin step: a proposal, and a test of whether to go there.

    The proposal is `langevin_step`'s y, accepted with probability
    `min(1, exp(U(x) - U(y)) q(x | y) / q(y | x))`, where `q(y | x) = N(x - (δ²/2) ∇U(x), δ² I)`.
    (G. Roberts, R. Tweedie, Exponential convergence of Langevin distributions and their discrete
    approximations, 1996.) A proposal whose energy is not finite is refused.

    Args:
      keys: `[B]`, one a chain.
      energy_fn: maps `[B, ...]` to energies `[B]` in nats.
      point: where the chains stand.
      step_size: δ.
      view: the energy and gradient that are sampled, from those of `energy_fn`.

    Returns:
      Where the chains then stand, and who moved, `[B]` bool.
    """
    key_noise, key_test = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    shape, dtype = point.x.shape, point.x.dtype
    noise = draws.normal(key_noise, shape[1:]).astype(dtype)
    energy, gradient = view(point)
    y = langevin_step(point.x, gradient, noise, step_size=step_size).astype(dtype)
    proposal = point_at(energy_fn, y)
    new_energy, new_gradient = view(proposal)
    # The noise that would lead back.
    back = (point.x - langevin_step(y, new_gradient, 0.0, step_size=step_size)) / step_size
    squares = jnp.square(noise) - jnp.square(back)
    log_ratio = energy - new_energy + 0.5 * jnp.sum(squares.reshape(shape[0], -1), axis=1)
    is_accepted = jnp.log(jax.vmap(jax.random.uniform)(key_test)) < log_ratio

    def choose(new, old):
        return jnp.where(is_accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, proposal, point), is_accepted


def mala_sample(
    key: chex.PRNGKey,
    energy_fn: EnergyFn,
    x: chex.Array,
    *,
    num_steps: int,
    step_size: float,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """`num_steps` Metropolis-adjusted Langevin steps from `x`; no gradient flows through them.

    Args:
      key: one key, or `[B]` keys, one a chain. One key stands for `fold_in(key, i)` at chain i.
      energy_fn: maps `[B, ...]` to energies `[B]` in nats, each row by itself.
      x: where the chains start, `[B, ...]`.
      num_steps: T.
      step_size: δ, of any size: a longer step is refused more often, and biases nothing.

    Returns:
      Where the chains end, `[B, ...]`, and `{'energy': [T, B], 'accepted': [T, B]}`: the energy
      after each step, and whether it was taken.
    """
    keys = draws.chain_keys(key, x.shape[0])

    def step(point, t):
        point, is_accepted = mala_step(draws.fold_in(keys, t), energy_fn, point, step_size)
        return point, {'energy': point.energy, 'accepted': is_accepted}

    start = point_at(energy_fn, jax.lax.stop_gradient(x))
    point, info = jax.lax.scan(step, start, jnp.arange(num_steps))
    return jax.lax.stop_gradient(point.x), jax.lax.stop_gradient(info)
