"""One training iteration of the poster, top to bottom.

The decoder draws ancestral samples, Langevin dynamics on the energy refines them, the energy learns
from data against refined samples, and the VAE learns from refined samples.
"""

import functools

import chex
import jax

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch, check_batch
from vaebm_jax.methods.chains import ancestral_langevin_sample, refine_z, run_chain
from vaebm_jax.methods.devices import chain_condition, image_keys, local_chains, local_copy
from vaebm_jax.methods.parts import (
    Metrics,
    known_z_loss,
    learn_from_chains,
    truth_loss,
    update_vae,
)
from vaebm_jax.models.apply import decode
from vaebm_jax.models.states import States
from vaebm_jax.models.vae import sample_prior
from vaebm_jax.samplers.keys import chain_keys, check_one_key, fold_in


def train_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """Ancestral Langevin sampling, then both updates: a pure function of one device's share.

    Args:
      key: one per run, the same at every step and on every device.
      states: energy, encoder and decoder; `states.step` is the number of iterations done.
      batch: this device's images `[B, H, W, C]` and, for conditional models, their condition.
      config: the experiment (static).
      axis_name: the mapped axis of devices to average over, if there is one.

    Returns:
      The new states, and metrics: scalars, means over all devices.

    Raises:
      TypeError, ValueError: for another key or batch than said here, or images of another size than
        the decoder's.
    """
    check_one_key(key)
    check_batch(batch)
    key = jax.random.fold_in(key, states.step)
    key_prior, key_langevin, key_posterior, key_dropout, key_truth = jax.random.split(key, 5)
    num_chains, first = local_chains(config, batch, axis_name)
    keys_prior, keys_langevin, keys_posterior, keys_dropout = (
        chain_keys(part, num_chains, first)
        for part in (key_prior, key_langevin, key_posterior, key_dropout)
    )
    keys_truth = image_keys(key_truth, batch, axis_name)
    condition = chain_condition(batch.condition, num_chains)

    # (i), (ii): the decoder maps z to ancestral samples, and Langevin dynamics refines them.
    local = local_copy(states, axis_name)
    chains = ancestral_langevin_sample(
        keys_prior, keys_langevin, local, config, num_chains, condition
    )
    refined = chains[1]
    if batch.image.shape[1:] != refined.shape[1:]:
        raise ValueError(
            f'batch.image must be of shape [B, {", ".join(map(str, refined.shape[1:]))}], as the '
            f"decoder's images, got shape {batch.image.shape}"
        )
    # Eq. 2: the energy learns from the data against the refined samples.
    energy, energy_metrics = learn_from_chains(
        key, states.energy, batch, chains, first, config, axis_name, condition
    )
    # Eq. 3: the VAE learns from the refined samples (and, if configured, from others).
    known_z = functools.partial(known_z_loss, keys_prior, refined, condition, config)
    truth = functools.partial(truth_loss, keys_truth, batch, config)
    encoder, decoder, vae_metrics = update_vae(
        keys_posterior,
        keys_dropout,
        states.encoder,
        states.decoder,
        refined,
        condition,
        config,
        axis_name,
        teaching=(truth, known_z),
    )
    states = states.advance(energy=energy, encoder=encoder, decoder=decoder)
    return states, energy_metrics | vae_metrics


def sample(
    keys: tuple[chex.PRNGKey, chex.PRNGKey],
    states: States,
    config: Config,
    num_samples: int,
    condition: chex.Array | None = None,
) -> dict[str, chex.Array]:
    """Ancestral and refined samples: `sample` in METHODS.

    With `langevin.prior_steps` the chains start from `latent` samples in place of ancestral ones.
    """
    keys_prior, keys_langevin = keys
    z = sample_prior(keys_prior, num_samples, config.latent_dim)
    starts = {'ancestral': decode(states.decoder, z, condition)}
    if config.langevin.prior_steps:
        keys_latent = fold_in(chain_keys(keys_prior, num_samples), 1)
        z = refine_z(keys_latent, states, config, z, condition)
        starts['latent'] = decode(states.decoder, z, condition)
    *_, start = starts.values()
    num_steps = config.langevin.num_steps
    refined, _ = run_chain(keys_langevin, states.energy, config, start, num_steps, condition)
    return starts | {'refined': refined}
