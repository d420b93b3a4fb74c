"""Langevin chains as configured: started by the decoder, run on the energy."""

import chex
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.conditions import keep_observed, observed_of
from vaebm_jax.models.apply import decode, energy_of
from vaebm_jax.models.states import States, TrainState
from vaebm_jax.models.vae import sample_prior
from vaebm_jax.samplers.langevin import langevin_sample

_LONGEST_DRIFT = 1.0  # Of z in a step: the prior's standard deviation.


def ancestral_langevin_sample(
    key_prior: chex.PRNGKey,
    key_langevin: chex.PRNGKey,
    states: States,
    config: Config,
    num_chains: int,
    condition: chex.Array | None = None,
) -> tuple[chex.Array, chex.Array, dict[str, chex.Array]]:
    """Ancestral samples of the decoder, refined by the energy (poster, eq. i and ii).

    Args:
      key_prior: for z; one key, or `[num_chains]`.
      key_langevin: for the chain; one key, or `[num_chains]`.
      states: the models, with the parameters to use as `params`.
      config: the size of z and the chain.
      num_chains: number of chains.
      condition: `[num_chains, H, W, K]`, or None.

    Returns:
      Ancestral and refined images, both `[num_chains, H, W, C]`, and `langevin_sample`'s info.
    """
    z = sample_prior(key_prior, num_chains, config.latent_dim)
    ancestral = decode(states.decoder, z, condition)
    refined, info = run_chain(
        key_langevin, states.energy, config, ancestral, config.langevin.num_steps, condition
    )
    return ancestral, refined, info


def refine_z(
    key: chex.PRNGKey,
    states: States,
    config: Config,
    z: chex.Array,
    condition: chex.Array | None = None,
) -> chex.Array:
    """z after `prior_steps` of Langevin dynamics on `|z|²/2 + U(g(z)) / T`, `[B, d]`.

    From the prior towards those z whose images have a low energy (J. Cui, T. Han, Learning
    energy-based model via dual-MCMC teaching, 2023, in training; here in sampling alone).

    Args:
      key: one key, or one per chain.
      states: energy U and decoder g, with the parameters to use as `params`.
      config: `config.langevin` has the steps, their size and the temperature T.
      z: starting points of the chains, `[B, d]`.
      condition: `[B, H, W, C + 1]`, or None.
    """
    image_energy = energy_of(states.energy, config, condition)

    def energy_fn(z):
        tilt = image_energy(decode(states.decoder, z, condition))
        return 0.5 * jnp.sum(jnp.square(z), axis=1) + tilt / config.langevin.prior_temperature

    return langevin_sample(
        key,
        energy_fn,
        z,
        num_steps=config.langevin.prior_steps,
        step_size=config.langevin.prior_step_size,
        max_drift=_LONGEST_DRIFT,
    )[0]


def run_chain(
    key: chex.PRNGKey,
    energy: TrainState,
    config: Config,
    x: chex.Array,
    num_steps: int,
    condition: chex.Array | None = None,
    first_step: chex.Numeric = 0,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """`langevin_sample` as configured, on the energy; observed pixels are kept.

    Args:
      key: one key, or one per chain.
      energy: the model.
      config: `config.langevin` is the chain, `config.condition.updates` the pixels that it updates.
      x: starting points of the chains, `[B, H, W, C]`.
      num_steps: T.
      condition: `[B, H, W, C + 1]`, or None.
      first_step: number of steps that the chains have already done.
    """
    hides = condition is not None and config.condition.updates == 'hidden'
    refined, info = langevin_sample(
        key,
        energy_of(energy, config, condition),
        x,
        num_steps=num_steps,
        step_size=config.langevin.step_size,
        noise_scale=config.langevin.noise_scale,
        max_drift=config.langevin.max_drift,
        max_element_drift=config.langevin.max_element_drift,
        first_step=first_step,
        moves=~observed_of(condition) if hides else None,
    )
    return keep_observed(refined, condition), info
