"""Langevin dynamics: draws from exp(-U(x)) for any energy U, by its gradient alone."""

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.samplers import arguments
from vaebm_jax.samplers import keys as draws
from vaebm_jax.samplers.programs import EnergyFn, TracedEnergy, energy_and_gradient, run_compiled


def langevin_step(
    x: chex.Array,
    gradient: chex.Array,
    noise: chex.Array | float,
    *,
    step_size: float,
    noise_scale: float = 1.0,
    max_drift: float = 0.0,
) -> chex.Array:
    """One revision, `x - (δ²/2) ∇U(x) + δ · noise_scale · noise` (poster, Langevin dynamics).

    δ is `step_size`; others write ε = δ²/2. Where `max_drift` is not 0, a chain's drift
    `(δ²/2) ∇U(x)` that is longer (Euclidean, over all of its numbers) is shortened to it.
    """
    # Points may be of fewer bits than noise and settings, also where promotion is strict.
    with jax.numpy_dtype_promotion('standard'):
        drift = 0.5 * step_size**2 * gradient
        if not _is_zero(max_drift):
            length = _length(drift).reshape(-1, *[1] * (x.ndim - 1))
            bound = jnp.where(max_drift == 0, jnp.inf, max_drift)  # It may be traced.
            drift = drift * jnp.minimum(1.0, bound / jnp.maximum(length, 1e-30))
        return x - drift + step_size * noise_scale * noise


def _is_zero(setting):
    """Whether it is plainly 0; a traced one may be anything."""
    return isinstance(setting, int | float) and setting == 0


def _length(x):
    return jnp.sqrt(jnp.sum(jnp.square(x).reshape(x.shape[0], -1), axis=1))


def langevin_sample(
    key: chex.PRNGKey,
    energy_fn: EnergyFn,
    x: chex.Array,
    *,
    num_steps: int,
    step_size: float,
    noise_scale: float = 1.0,
    max_drift: float = 0.0,
    first_step: chex.Numeric = 0,
    moves: chex.Array | None = None,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """Revises `x` by `num_steps` of Langevin dynamics on `energy_fn`.

    Poster, "A gradient-based MCMC: Langevin dynamics". The chain is a `lax.scan`, so its memory
    does not grow with `num_steps`, and no gradient flows through it to where it started.

    Args:
      key: one key, or `[B]` keys, one a chain. One key stands for `fold_in(key, i)` at chain i.
      energy_fn: maps `[B, ...]` to energies `[B]` in nats, each row by itself. Calls outside of
        `jit` with functions that compute the same share one compilation, whatever the arrays that
        they close over; a Python number in it is part of what it computes.
      x: where the chains start, `[B, ...]` floating-point numbers.
      num_steps: T; 0 gives `x` back.
      step_size: δ; the drift is δ²/2 times the gradient and the noise has standard deviation δ.
      noise_scale: 1 samples exp(-U); 0 descends without noise, as the authors' code does.
      max_drift: the longest way that the gradient may take a chain in a step; 0: no bound, and
        only so is it Langevin dynamics everywhere. A bound that chains seldom meet keeps the few
        that overshoot in a steep place from running away.
      first_step: how many steps these chains have behind them: with the same key they go on as if
        they had not paused.
      moves: which numbers the chain moves, bool, of a shape that broadcasts to `x` in as many axes;
        the others stay as they are, bit for bit, and their gradients do not count. None: all. So a
        chain on U(x) samples the moving numbers given the others.

    Returns:
      The revised `[B, ...]`, and `{'energy': [T, B], 'grad_norm': [T, B]}` at the point that each
      step leaves from.

    Raises:
      TypeError: if an argument has another type than said here.
      ValueError: if an argument has another shape or range than said here, or the energy depends on
        `x` but has no gradient. (A constant energy is right: chains diffuse.)
    """
    x = arguments.points(x)
    num_steps = arguments.whole_number('num_steps', num_steps)
    arguments.check_positive(step_size=step_size)
    arguments.check_not_negative(noise_scale=noise_scale, max_drift=max_drift)
    arguments.check_step(first_step=first_step)
    if moves is not None:
        arguments.check_mask('moves', moves, x)
    keys = draws.chain_keys(key, x.shape[0])
    numbers = dict(step_size=step_size, noise_scale=noise_scale, max_drift=max_drift)
    zeros = {name: number for name, number in numbers.items() if _is_zero(number)}
    numbers = {name: number for name, number in numbers.items() if name not in zeros}
    return run_compiled(
        _sample, energy_fn, x, keys, x, first_step, moves, numbers, num_steps=num_steps, **zeros
    )


def _sample(energy_fn, keys, x, first_step, moves, numbers, *, num_steps, **zeros):
    if isinstance(energy_fn, TracedEnergy) and energy_fn.ignores_its_gradient():
        raise ValueError(
            'energy_fn must have a gradient, got one that is 0 everywhere (of whole numbers, '
            'comparisons or stop_gradient?)'
        )
    settings = numbers | zeros
    x = jax.lax.stop_gradient(x)
    shape = x.shape[1:]
    is_noisy = 'noise_scale' not in zeros

    def revise(x, t):
        energy, gradient = energy_and_gradient(energy_fn, x)
        noise = 0.0
        if is_noisy:
            noise = draws.normal(draws.fold_in(keys, t), shape, x.dtype)
        if moves is not None:
            gradient, noise = (jnp.where(moves, part, 0.0) for part in (gradient, noise))
        revised = langevin_step(x, gradient, noise, **settings)
        grad_norm = _length(gradient)
        return revised.astype(x.dtype), {'energy': energy, 'grad_norm': grad_norm}

    steps = jnp.asarray(first_step, jnp.int32) + jnp.arange(num_steps, dtype=jnp.int32)
    x, info = jax.lax.scan(revise, x, steps)
    return jax.lax.stop_gradient(x), jax.lax.stop_gradient(info)
