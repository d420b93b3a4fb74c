"""Langevin dynamics: draws from exp(-U(x)) for any energy U, by its gradient alone."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from vaebm_jax import keys as draws

EnergyFn = Callable[[chex.Array], chex.Array]


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
      energy_fn: maps `[B, ...]` to energies `[B]` in nats, each row by itself.
      x: where the chains start, `[B, ...]`.
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
    """
    x = jax.lax.stop_gradient(x)
    num_chains, *shape = x.shape
    keys = draws.chain_keys(key, num_chains)
    is_noisy = not _is_zero(noise_scale)

    def revise(x, t):
        energy, pull_back = jax.vjp(energy_fn, x)
        chex.assert_shape(energy, (num_chains,))
        (gradient,) = pull_back(jnp.ones_like(energy))
        noise = 0.0
        if is_noisy:
            noise = draws.normal(draws.fold_in(keys, t), shape)
        if moves is not None:
            gradient, noise = (jnp.where(moves, part, 0.0) for part in (gradient, noise))
        revised = langevin_step(
            x,
            gradient,
            noise,
            step_size=step_size,
            noise_scale=noise_scale,
            max_drift=max_drift,
        )
        grad_norm = _length(gradient)
        return revised.astype(x.dtype), {'energy': energy, 'grad_norm': grad_norm}

    x, info = jax.lax.scan(revise, x, first_step + jnp.arange(num_steps))
    return jax.lax.stop_gradient(x), jax.lax.stop_gradient(info)
