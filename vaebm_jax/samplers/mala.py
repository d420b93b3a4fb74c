"""Langevin dynamics with a Metropolis test: it samples exp(-U) exactly, at any step size."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.samplers import arguments
from vaebm_jax.samplers.keys import chain_keys, fold_in, normal, uniform
from vaebm_jax.samplers.langevin import langevin_step
from vaebm_jax.samplers.programs import EnergyFn, energy_and_gradient, run_compiled


class Point(NamedTuple):
    """The current points of chains with their energies, so that a step costs one gradient.

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
    return Point(x, *energy_and_gradient(energy_fn, x))


def log_acceptance(
    here: Point, there: Point, noise: chex.Array, step_size: chex.Numeric
) -> chex.Array:
    """Log of the probability that a Metropolis test accepts a Langevin step, `[B]`, at most 0.

    `min(1, exp(U(x) - U(y)) q(x | y) / q(y | x))`, where `q(y | x) = N(x - (δ²/2) ∇U(x), δ² I)`.
    (G. Roberts, R. Tweedie, Exponential convergence of Langevin distributions and their discrete
    approximations, 1996.)

    Where the energy is not finite (+inf, -inf or NaN) there is no density. A step to such a point,
    or to one with a gradient that is not finite, is never accepted: -inf. A step from such a point
    to any other is always accepted: 0.

    Args:
      here: x.
      there: y, the proposal.
      noise: `[B, ...]`, of the step from x to y.
      step_size: δ.
    """
    # Points may have fewer bits than energies and settings, also under strict promotion.
    with jax.numpy_dtype_promotion('standard'):
        drifted = langevin_step(there.x, there.gradient, 0.0, step_size=step_size)
        back = (here.x - drifted) / step_size  # The noise of the reverse step.
        squares = (jnp.square(noise) - jnp.square(back)).reshape(len(noise), -1)
        log_q_ratio = 0.5 * jnp.sum(squares, axis=1)
        log_ratio = here.energy - there.energy + log_q_ratio
    log_ratio = jnp.where(jnp.isfinite(here.energy), log_ratio, jnp.inf)
    is_possible = jnp.isfinite(there.energy) & jnp.isfinite(log_q_ratio)
    return jnp.where(is_possible, jnp.minimum(log_ratio, 0.0), -jnp.inf)


def acceptance(
    key: chex.PRNGKey, energy_fn: EnergyFn, x: chex.Array, *, step_size: float
) -> chex.Array:
    """The probability that a Metropolis test accepts one Langevin step from `x`, `[B]` in [0, 1].

    Near 1 the chain without the test, as in training, samples exp(-U) well; near 0 it has another
    stationary distribution. See `log_acceptance`.

    Args:
      key: one key, or `[B]` keys, one per chain.
      energy_fn: maps `[B, ...]` to energies `[B]` in nats.
      x: starting points, `[B, ...]`.
      step_size: δ.
    """
    x = arguments.points(x)
    arguments.check_positive(step_size=step_size)
    keys = chain_keys(key, x.shape[0])
    noise = normal(keys, x.shape[1:], x.dtype).astype(x.dtype)
    here = point_at(energy_fn, x)
    there = point_at(energy_fn, _propose(here, noise, step_size))
    return jnp.exp(log_acceptance(here, there, noise, step_size))


def _propose(point, noise, step_size):
    """The proposal. A gradient that is not finite is left out: the proposal is then noise only."""
    gradient = jnp.where(jnp.isfinite(point.gradient), point.gradient, 0.0)
    return langevin_step(point.x, gradient, noise, step_size=step_size).astype(point.x.dtype)


def mala_step(
    keys: chex.PRNGKey,
    energy_fn: EnergyFn,
    point: Point,
    step_size: chex.Numeric,
    view: Callable[[Point], Point] = lambda point: point,
) -> tuple[Point, chex.Array]:
    """One Metropolis-adjusted Langevin step: a proposal, and the test that accepts it.

    The proposal is `langevin_step`'s, accepted with the probability of `log_acceptance`: never
    where the energy or its gradient is not finite.

    Args:
      keys: `[B]`, one per chain.
      energy_fn: maps `[B, ...]` to energies `[B]` in nats.
      point: the current points.
      step_size: δ.
      view: maps a point with the energy and gradient of `energy_fn` to the same point with those
        of the sampled density.

    Returns:
      The new points, and which proposals were accepted, `[B]` bool.
    """
    key_noise, key_test = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    dtype = point.x.dtype
    noise = normal(key_noise, point.x.shape[1:], dtype).astype(dtype)
    here = view(point)
    proposal = point_at(energy_fn, _propose(here, noise, step_size))
    log_probability = log_acceptance(here, view(proposal), noise, step_size)
    with jax.numpy_dtype_promotion('standard'):
        is_accepted = jnp.log(uniform(key_test, dtype)) < log_probability

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

    Where the energy is not finite there is no density, and no chain goes there. One that starts
    there leaves with the first proposal of finite energy, and until then `info` shows its energy.

    Args:
      key: one key, or `[B]` keys, one per chain. With one key, chain i uses `fold_in(key, i)`.
      energy_fn: maps `[B, ...]` to energies `[B]` in nats, each row by itself; compiled once, as in
        `langevin_sample`.
      x: starting points of the chains, `[B, ...]` floating-point numbers.
      num_steps: T.
      step_size: δ, of any size: a longer step is rejected more often, but causes no bias.

    Returns:
      The last points, `[B, ...]`, and `{'energy': [T, B], 'accepted': [T, B]}`: the energy after
      each step, and whether the step was accepted.

    Raises:
      TypeError: if an argument has another type than said here.
      ValueError: if an argument has another shape or range than said here.
    """
    x = arguments.points(x)
    num_steps = arguments.whole_number('num_steps', num_steps)
    arguments.check_positive(step_size=step_size)
    keys = chain_keys(key, x.shape[0])
    return run_compiled(_sample, energy_fn, x, keys, x, step_size, num_steps=num_steps)


def _sample(energy_fn, keys, x, step_size, *, num_steps):
    def step(point, t):
        point, is_accepted = mala_step(fold_in(keys, t), energy_fn, point, step_size)
        return point, {'energy': point.energy, 'accepted': is_accepted}

    start = point_at(energy_fn, jax.lax.stop_gradient(x))
    point, info = jax.lax.scan(step, start, jnp.arange(num_steps))
    return jax.lax.stop_gradient(point.x), jax.lax.stop_gradient(info)
