"""Langevin dynamics: samples of exp(-U(x)) for any energy U, by its gradient."""

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.samplers import arguments
from vaebm_jax.samplers.keys import chain_keys, fold_in, normal
from vaebm_jax.samplers.programs import EnergyFn, TracedEnergy, energy_and_gradient, run_compiled


def langevin_step(
    x: chex.Array,
    gradient: chex.Array,
    noise: chex.Array | float,
    *,
    step_size: float,
    noise_scale: float = 1.0,
    max_drift: float = 0.0,
    max_element_drift: float = 0.0,
) -> chex.Array:
    """One step, `x - (δ²/2) ∇U(x) + δ · noise_scale · noise` (poster, Langevin dynamics).

    δ is `step_size`; others write ε = δ²/2. If `max_drift` is not 0, a chain's drift
    `(δ²/2) ∇U(x)` is clipped to that Euclidean norm, over all dimensions; before that, each of its
    elements to ±`max_element_drift`, if this is not 0.
    """
    # Points may have fewer bits than noise and settings, also under strict promotion.
    with jax.numpy_dtype_promotion('standard'):
        drift = 0.5 * step_size**2 * gradient
        if not _is_zero(max_element_drift):
            drift = jnp.clip(drift, -_bound(max_element_drift), _bound(max_element_drift))
        if not _is_zero(max_drift):
            length = _length(drift).reshape(-1, *[1] * (x.ndim - 1))
            drift = drift * jnp.minimum(1.0, _bound(max_drift) / jnp.maximum(length, 1e-30))
        return x - drift + step_size * noise_scale * noise


def _is_zero(setting):
    """Whether a setting is the number 0; a traced one may have any value."""
    return isinstance(setting, int | float) and setting == 0


def _bound(setting):
    return jnp.where(setting == 0, jnp.inf, setting)  # It may be traced.


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
    max_element_drift: float = 0.0,
    first_step: chex.Numeric = 0,
    moves: chex.Array | None = None,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """Refines `x` by `num_steps` of Langevin dynamics on `energy_fn`.

    Poster, "A gradient-based MCMC: Langevin dynamics". The chain is a `lax.scan`, so its memory
    does not grow with `num_steps`; no gradient flows through it.

    Args:
      key: one key, or `[B]` keys, one per chain. With one key, chain i uses `fold_in(key, i)`.
      energy_fn: maps `[B, ...]` to energies `[B]` in nats, each row by itself. Calls outside of
        `jit` with functions that trace to the same program share one compilation, for any arrays
        that they close over; a Python number in it is part of the program.
      x: starting points of the chains, `[B, ...]` floating-point numbers.
      num_steps: T; 0 returns `x`.
      step_size: δ; the drift is δ²/2 times the gradient and the noise has standard deviation δ.
      noise_scale: 1 samples exp(-U); 0 descends without noise, as the authors' code does.
      max_drift: largest norm of a chain's drift in one step; 0: no bound, which is exact Langevin
        dynamics. A bound that chains seldom reach keeps those that overshoot at a steep point from
        diverging.
      max_element_drift: largest absolute value of an element of the drift; 0: no bound.
      first_step: number of steps that these chains have already done: with the same key they
        continue as if they had not paused.
      moves: update mask, bool, of a shape that broadcasts to `x` in as many axes; where it is False
        `x` stays the same, bit for bit, and gradients are not counted. None: all True. So a chain
        on U(x) samples the updated numbers given the others.

    Returns:
      The refined points `[B, ...]`, and `{'energy': [T, B], 'grad_norm': [T, B]}` at the point
      before each step.

    Raises:
      TypeError: if an argument has another type than said here.
      ValueError: if an argument has another shape or range than said here, or the energy depends on
        `x` but has no gradient. (A constant energy is allowed: chains diffuse.)
    """
    x = arguments.points(x)
    num_steps = arguments.whole_number('num_steps', num_steps)
    arguments.check_positive(step_size=step_size)
    bounds = dict(max_drift=max_drift, max_element_drift=max_element_drift)
    arguments.check_not_negative(noise_scale=noise_scale, **bounds)
    arguments.check_step(first_step=first_step)
    if moves is not None:
        arguments.check_mask('moves', moves, x)
    keys = chain_keys(key, x.shape[0])
    numbers = dict(step_size=step_size, noise_scale=noise_scale, **bounds)
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

    def step(x, t):
        energy, gradient = energy_and_gradient(energy_fn, x)
        noise = 0.0
        if is_noisy:
            noise = normal(fold_in(keys, t), shape, x.dtype)
        if moves is not None:
            gradient, noise = (jnp.where(moves, part, 0.0) for part in (gradient, noise))
        refined = langevin_step(x, gradient, noise, **settings)
        grad_norm = _length(gradient)
        return refined.astype(x.dtype), {'energy': energy, 'grad_norm': grad_norm}

    steps = jnp.asarray(first_step, jnp.int32) + jnp.arange(num_steps, dtype=jnp.int32)
    x, info = jax.lax.scan(step, x, steps)
    return jax.lax.stop_gradient(x), jax.lax.stop_gradient(info)
