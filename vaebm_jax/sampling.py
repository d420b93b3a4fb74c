"""Samples of a model: the decoder's guess and its Langevin revision, in training and after it."""

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.base import States, TrainState
from vaebm_jax.config import Config
from vaebm_jax.energy import make_energy_fn
from vaebm_jax.keys import chain_keys
from vaebm_jax.langevin import langevin_sample
from vaebm_jax.networks import cast_inner
from vaebm_jax.vae import sample_prior

_SAMPLES_A_CALL = 256


def decode(decoder: TrainState, z: chex.Array, condition: chex.Array | None = None) -> chex.Array:
    """`g_α(z)`: images `[B, H, W, C]` from `z` `[B, d]`, with the state's parameters."""
    return decoder.apply_fn({'params': decoder.params}, z, condition)


def ancestral_langevin_sample(
    key_prior: chex.PRNGKey,
    key_langevin: chex.PRNGKey,
    states: States,
    config: Config,
    num_chains: int,
    condition: chex.Array | None = None,
) -> tuple[chex.Array, chex.Array, dict[str, chex.Array]]:
    """A first guess by the decoder and its revision by the energy (poster, eq. i and ii).

    Args:
      key_prior: for z; one key, or `[num_chains]`.
      key_langevin: for the chain; one key, or `[num_chains]`.
      states: the models, with the parameters to use as `params`.
      config: gives the size of z and the chain.
      num_chains: how many.
      condition: `[num_chains, H, W, K]`, or None.

    Returns:
      The guesses, the revised images, both `[num_chains, H, W, C]`, and `langevin_sample`'s info.
    """
    z = sample_prior(key_prior, num_chains, config.latent_dim)
    guess = decode(states.decoder, z, condition)
    refined, info = langevin_sample(
        key_langevin,
        energy_of(states.energy, config, condition),
        guess,
        num_steps=config.langevin.num_steps,
        step_size=config.langevin.step_size,
        noise_scale=config.langevin.noise_scale,
        max_drift=config.langevin.max_drift,
    )
    return guess, refined, info


def energy_of(
    state: TrainState, config: Config, condition: chex.Array | None = None
) -> Callable[[chex.Array], chex.Array]:
    """The energy `x -> [B]` nats of one TrainState, with its `params`."""
    return make_energy_fn(
        state.apply_fn,
        cast_inner(state.params, config.dtype),
        condition,
        reference_std=config.energy.reference_std,
        scale=config.energy.scale,
    )


def averaged(states: States) -> States:
    """The states with the moving averages in place of the parameters."""
    return States(
        *(
            state.replace(params=state.ema_params)
            for state in (states.energy, states.encoder, states.decoder)
        )
    )


def energy_fn(
    states: States, config: Config, ema: bool = True
) -> Callable[[chex.Array], chex.Array]:
    """A trained energy as a function of images `[B, H, W, C]` in [-1, 1], to `[B]` in nats."""
    return energy_of((averaged(states) if ema else states).energy, config)


def generate(
    key: chex.PRNGKey, states: States, config: Config, num_samples: int, ema: bool = True
) -> tuple[chex.Array, chex.Array]:
    """Draws images: the decoder's guesses, and the same after the Langevin revision.

    Sample i depends on `key` and i alone, however many are drawn.

    Args:
      key: one key.
      states: trained models, as `load` gives them.
      config: the experiment; `config.langevin` is the chain.
      num_samples: N.
      ema: draw with the averaged parameters.

    Returns:
      Ancestral and refined images, `[N, H, W, C]` each. Pixels of the refined may leave [-1, 1].
    """
    if num_samples < 1:
        raise ValueError(f'num_samples must be at least 1, got {num_samples}')
    states = averaged(states) if ema else states
    key_prior, key_langevin = jax.random.split(key)
    size = min(num_samples, _SAMPLES_A_CALL)
    parts = [
        _generate(key_prior, key_langevin, states, config, size, first)
        for first in range(0, num_samples, size)
    ]
    ancestral, refined = (jnp.concatenate(part)[:num_samples] for part in zip(*parts, strict=True))
    return ancestral, refined


@functools.partial(jax.jit, static_argnames=('config', 'num_samples'))
def _generate(key_prior, key_langevin, states, config, num_samples, first):
    ancestral, refined, _ = ancestral_langevin_sample(
        chain_keys(key_prior, num_samples, first),
        chain_keys(key_langevin, num_samples, first),
        states,
        config,
        num_samples,
    )
    return ancestral, refined
