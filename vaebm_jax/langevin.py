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
) -> chex.Array:
    """One revision, `x - (δ²/2) ∇U(x) + δ · noise_scale · noise` (poster, Langevin dynamics).

    δ is `step_size`; others write ε = δ²/2.
    """
    return x - 0.5 * step_size**2 * gradient + step_size * noise_scale * noise


def langevin_sample(
    key: chex.PRNGKey,
    energy_fn: EnergyFn,
    x: chex.Array,
    *,
    num_steps: int,
    step_size: float,
    noise_scale: float = 1.0,
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

    Returns:
      The revised `[B, ...]`, and `{'energy': [T, B], 'grad_norm': [T, B]}` at the point that each
      step leaves from.
    """
    x = jax.lax.stop_gradient(x)
    num_chains, *shape = x.shape
    keys = draws.chain_keys(key, num_chains)
    is_noisy = not (isinstance(noise_scale, (int, float)) and noise_scale == 0)

    def revise(x, t):
        energy, pull_back = jax.vjp(energy_fn, x)
        chex.assert_shape(energy, (num_chains,))
        (gradient,) = pull_back(jnp.ones_like(energy))
        noise = 0.0
        if is_noisy:
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
            noise = draws.normal(step_keys, shape)
        revised = langevin_step(x, gradient, noise, step_size=step_size, noise_scale=noise_scale)
        grad_norm = jnp.sqrt(jnp.sum(jnp.square(gradient).reshape(num_chains, -1), axis=1))
        return revised.astype(x.dtype), {'energy': energy, 'grad_norm': grad_norm}

    x, info = jax.lax.scan(revise, x, jnp.arange(num_steps))
    return jax.lax.stop_gradient(x), jax.lax.stop_gradient(info)
