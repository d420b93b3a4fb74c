"""Langevin dynamics with a Metropolis test: it samples exp(-U) exactly, at any step size."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.samplers import arguments
from vaebm_jax.samplers import keys as draws
from vaebm_jax.samplers.langevin import langevin_step
from vaebm_jax.samplers.programs import EnergyFn, energy_and_gradient, run_compiled


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
    return Point(x, *energy_and_gradient(energy_fn, x))


def log_acceptance(
    here: Point, there: Point, noise: chex.Array, step_size: chex.Numeric
) -> chex.Array:
    """Log of the probability that a Metropolis test accepts a Langevin step, `[B]`, 0 at the most.

    `min(1, exp(U(x) - U(y)) q(x | y) / q(y | x))`, where `q(y | x) = N(x - (δ²/2) ∇U(x), δ² I)`.
    (G. Roberts, R. Tweedie, Exponential convergence of Langevin distributions and their discrete
    approximations, 1996.)

    Where the energy is not finite (+inf, -inf or NaN) there is no density. A step to there, or to
    where the gradient is not finite, is never accepted: -inf. A step from there to anywhere else
    always is: 0.

    Args:
      here: x.
      there: y, the proposal.
      noise: `[B, ...]`, which led from x to y.
      step_size: δ.
    """
    # Points may be of fewer bits than energies and settings, also where promotion is strict.
    with jax.numpy_dtype_promotion('standard'):
        led_to = langevin_step(there.x, there.gradient, 0.0, step_size=step_size)
        back = (here.x - led_to) / step_size  # The noise that would lead back.
        squares = (jnp.square(noise) - jnp.square(back)).reshape(len(noise), -1)
        log_q_ratio = 0.5 * jnp.sum(squares, axis=1)
        log_ratio = here.energy - there.energy + log_q_ratio
    log_ratio = jnp.where(jnp.isfinite(here.energy), log_ratio, jnp.inf)
    is_possible = jnp.isfinite(there.energy) & jnp.isfinite(log_q_ratio)
    return jnp.where(is_possible, jnp.minimum(log_ratio, 0.0), -jnp.inf)


def acceptance(
    key: chex.PRNGKey, energy_fn: EnergyFn, x: chex.Array, *, step_size: float
) -> chex.Array:
    """How likely a Metropolis test would accept one Langevin step from `x`, `[B]` in [0, 1].

    Near 1, the chain without the test, which is what training runs, samples exp(-U) well; near 0,
    its stationary distribution is another. See `log_acceptance`.

    Args:
      key: one key, or `[B]` keys, one a chain.
      energy_fn: maps `[B, ...]` to energies `[B]` in nats.
      x: where the steps start, `[B, ...]`.
      step_size: δ.
    """
    x = arguments.points(x)
    arguments.check_positive(step_size=step_size)
    keys = draws.chain_keys(key, x.shape[0])
    noise = draws.normal(keys, x.shape[1:], x.dtype).astype(x.dtype)
    here = point_at(energy_fn, x)
    there = point_at(energy_fn, _propose(here, noise, step_size))
    return jnp.exp(log_acceptance(here, there, noise, step_size))


def _propose(point, noise, step_size):
    """Where a step leads. A gradient that is not finite tells no way: there the noise is all."""
    gradient = jnp.where(jnp.isfinite(point.gradient), point.gradient, 0.0)
    return langevin_step(point.x, gradient, noise, step_size=step_size).astype(point.x.dtype)


def mala_step(
    keys: chex.PRNGKey,
    energy_fn: EnergyFn,
    point: Point,
    step_size: chex.Numeric,
    view: Callable[[Point], Point] = lambda point: point,
) -> tuple[Point, chex.Array]:
    """One Metropolis-adjusted Langevin step: a proposal, and a test of whether to go there.

    The proposal is `langevin_step`'s, accepted with the probability of `log_acceptance`: never
    where the energy or its gradient is not finite.

    Args:
      keys: `[B]`, one a chain.
      energy_fn: maps `[B, ...]` to energies `[B]` in nats.
      point: where the chains stand.
      step_size: δ.
      view: the same points with the energy and gradient that are sampled, from those of
        `energy_fn`.

    Returns:
      Where the chains then stand, and who moved, `[B]` bool.
    """
    key_noise, key_test = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    dtype = point.x.dtype
    noise = draws.normal(key_noise, point.x.shape[1:], dtype).astype(dtype)
    here = view(point)
    proposal = point_at(energy_fn, _propose(here, noise, step_size))
    log_probability = log_acceptance(here, view(proposal), noise, step_size)
    with jax.numpy_dtype_promotion('standard'):
        is_accepted = jnp.log(draws.uniform(key_test, dtype)) < log_probability

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
    there leaves with the first proposal that is elsewhere, and until then `info` shows its energy.

    Args:
      key: one key, or `[B]` keys, one a chain. One key stands for `fold_in(key, i)` at chain i.
      energy_fn: maps `[B, ...]` to energies `[B]` in nats, each row by itself; compiled once, as
        `langevin_sample` does.
      x: where the chains start, `[B, ...]` floating-point numbers.
      num_steps: T.
      step_size: δ, of any size: a longer step is refused more often, and biases nothing.

    Returns:
      Where the chains end, `[B, ...]`, and `{'energy': [T, B], 'accepted': [T, B]}`: the energy
      after each step, and whether it was taken.

    Raises:
      TypeError: if an argument has another type than said here.
      ValueError: if an argument has another shape or range than said here.
    """
    x = arguments.points(x)
    num_steps = arguments.whole_number('num_steps', num_steps)
    arguments.check_positive(step_size=step_size)
    keys = draws.chain_keys(key, x.shape[0])
    return run_compiled(_sample, energy_fn, x, keys, x, step_size, num_steps=num_steps)


def _sample(energy_fn, keys, x, step_size, *, num_steps):
    def step(point, t):
        point, is_accepted = mala_step(draws.fold_in(keys, t), energy_fn, point, step_size)
        return point, {'energy': point.energy, 'accepted': is_accepted}

    start = point_at(energy_fn, jax.lax.stop_gradient(x))
    point, info = jax.lax.scan(step, start, jnp.arange(num_steps))
    return jax.lax.stop_gradient(point.x), jax.lax.stop_gradient(info)
