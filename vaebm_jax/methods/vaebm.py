"""One training iteration of the poster, top to bottom.

A decoder guesses images, Langevin dynamics on the energy revises them, the energy learns from
data against the revised, and the VAE learns from the revised.
"""

import functools

import chex
import jax

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.chains import ancestral_langevin_sample
from vaebm_jax.methods.devices import chain_condition, image_keys, local_chains, own_copy
from vaebm_jax.methods.parts import (
    Metrics,
    chain_metrics,
    known_z_loss,
    truth_loss,
    update_energy,
    update_vae,
    with_noise,
)
from vaebm_jax.models.states import States
from vaebm_jax.samplers.keys import branch, chain_keys


def train_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """Ancestral Langevin sampling, then both updates: a pure function of one device's share.

    Args:
      key: the run's own, the same at every step and on every device.
      states: energy, encoder and decoder; `states.step` is the run's clock.
      batch: this device's images `[B, H, W, C]` and, where the models have one, their condition.
      config: the experiment (static).
      axis_name: the mapped axis of devices to average over, if there is one.

    Returns:
      The states a step later, and metrics: scalars, means over all devices.
    """
    key = jax.random.fold_in(key, states.step)
    key_prior, key_langevin, key_posterior, key_dropout, key_truth = jax.random.split(key, 5)
    num_chains, first = local_chains(config, batch, axis_name)
    keys_prior, keys_langevin, keys_posterior, keys_dropout = (
        chain_keys(part, num_chains, first)
        for part in (key_prior, key_langevin, key_posterior, key_dropout)
    )
    keys_noise = image_keys(branch(key, 'data noise'), batch, axis_name)
    keys_truth = image_keys(key_truth, batch, axis_name)
    condition = chain_condition(batch.condition, num_chains)

    # (i), (ii): the decoder guesses images from z, and Langevin dynamics revises them.
    own = own_copy(states, axis_name)
    guess, refined, info = ancestral_langevin_sample(
        keys_prior, keys_langevin, own, config, num_chains, condition
    )
    # Eq. 2: the energy learns from the data against the revised images.
    observed = with_noise(keys_noise, batch, config)
    energy, energy_metrics = update_energy(
        states.energy, observed, refined, condition, config, axis_name
    )
    # Eq. 3: the VAE learns from the revised images (and, where the config says so, from others).
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
    metrics = chain_metrics(guess, refined, info, batch.image, axis_name)
    start = metrics.pop('langevin/energy_start')
    metrics['langevin/energy_drop'] = start - energy_metrics['energy_samples']
    states = states.advance(energy=energy, encoder=encoder, decoder=decoder)
    return states, energy_metrics | vae_metrics | metrics


def sample(
    keys: tuple[chex.PRNGKey, chex.PRNGKey],
    states: States,
    config: Config,
    num_samples: int,
    condition: chex.Array | None = None,
) -> dict[str, chex.Array]:
    """The decoder's images, and the same after the chain: what METHODS calls `sample`."""
    guess, refined, _ = ancestral_langevin_sample(*keys, states, config, num_samples, condition)
    return {'ancestral': guess, 'refined': refined}


def collapse_warning(step: int, metrics: dict[str, float]) -> str:
    """In words, if the samples are becoming one picture; '' if not.

    A flat energy, or one far too fast for the VAE, does this, and the VAE, which sees the samples
    alone, cannot recover. The first 200 steps are spared: there all runs look so.
    """
    if step < 200 or 'spread' not in metrics:  # Of a warm start.
        return ''
    if metrics['rate'] >= 0.1 and metrics['spread'] >= 0.1:
        return ''
    return (
        f'warning: the samples look like one picture (rate {metrics["rate"]:.2g} nats, spread '
        f"{metrics['spread']:.2g} of the data's). Usual causes: a flat energy (raise "
        'energy.learning_rate) or one too fast for the VAE (lower it, or vae.kl_weight)'
    )
