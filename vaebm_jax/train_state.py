"""From an experiment's config to its three untrained models."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import optax

from vaebm_jax import spectral
from vaebm_jax.base import States, TrainState
from vaebm_jax.config import Config, EnergyConfig, ScheduleConfig
from vaebm_jax.keys import check_one_key
from vaebm_jax.networks import Decoder, Encoder, EnergyNet


def learning_rate(peak: float, schedule: ScheduleConfig, num_steps: int) -> optax.Schedule:
    """The rate at each step: `peak`, and how it falls over a run of `num_steps`."""
    if schedule.rise_steps:
        rise = optax.linear_schedule(0.0, 1.0, schedule.rise_steps)
        level = learning_rate(peak, dataclasses.replace(schedule, rise_steps=0), num_steps)
        return lambda step: rise(step + 1) * level(step)
    if schedule.name == 'linear':
        fall = max(1, round(schedule.decay_share * num_steps))
        return optax.linear_schedule(
            peak, schedule.final_share * peak, fall, transition_begin=num_steps - fall
        )
    if schedule.name == 'exponential':
        return optax.exponential_decay(peak, schedule.decay_steps, schedule.decay_rate)
    return optax.constant_schedule(peak)


def rates_at(step: int, config: Config) -> dict[str, float]:
    """The learning rates after `step` iterations, by whose they are.

    The energy's counts its own updates, which a warm start has none of.
    """
    rates = {}
    if config.method != 'vae':
        rate = learning_rate(config.energy.learning_rate, config.schedule, energy_steps(config))
        rates['energy'] = float(rate(max(0, step - config.warmup_steps)))
    rate = learning_rate(config.vae.learning_rate, config.schedule, config.num_steps)
    return rates | {'VAE': float(rate(step))}


def energy_steps(config: Config) -> int:
    """How long the run is for the energy's rate."""
    return config.schedule.energy_steps or config.num_steps


# Functions are equal only to themselves. Made once for equal settings, they let states of several
# seeds go through one compilation, and be stacked and compared by `jax.tree.map`.


@functools.lru_cache
def _functions(network):
    return jax.jit(network.init), network.apply


@functools.lru_cache
def _adam(section, schedule, num_steps):
    rate = learning_rate(section.learning_rate, schedule, num_steps)
    adam = optax.adam(rate, b1=section.adam_b1, b2=section.adam_b2)
    if not section.max_grad_norm:
        return adam
    unit = 1.0
    if isinstance(section, EnergyConfig):
        unit = section.scale or section.reference_std**-2
    return optax.chain(optax.clip_by_global_norm(section.max_grad_norm * unit), adam)


def create_states(key: chex.PRNGKey, config: Config, condition: chex.Array | None = None) -> States:
    """Three TrainStates at step 0, with fresh parameters and an Adam each.

    Args:
      key: of the initial parameters.
      config: the experiment.
      condition: an example `[1, H, W, C + 1]` of what the models are conditioned on; None: as the
        config has it.
    """
    check_one_key(key)
    config.freeze()
    size, channels = config.data.image_size, config.data.num_channels
    if condition is None and config.condition.kind != 'none':
        condition = jnp.zeros((1, size, size, channels + 1), jnp.float32)
    image = jnp.zeros((1, size, size, channels), jnp.float32)
    z = jnp.zeros((1, config.latent_dim), jnp.float32)
    table = config.network
    common = dict(activation=table.activation, dtype=config.dtype, init_std=table.init_std)
    energy = EnergyNet(table.energy, table.energy_outputs, **common)
    encoder = Encoder(table.encoder, config.latent_dim, **common)
    decoder = Decoder(
        table.decoder,
        (size, size, channels),
        table.decoder_norm,
        table.decoder_output,
        limit=1.0 + config.data.headroom,
        modulated=table.decoder_modulated,
        **common,
    )

    def create(key, network, example, section, num_steps=config.num_steps):
        init, apply = _functions(network)
        params = init(key, example, condition)['params']
        tx = _adam(section, config.schedule, num_steps)
        return TrainState.create(apply_fn=apply, params=params, tx=tx)

    key_energy, key_encoder, key_decoder = jax.random.split(key, 3)
    energy = create(key_energy, energy, image, config.energy, energy_steps(config))
    if config.energy.spectral_norm:
        energy = energy.replace(extra=spectral.start(energy.params))
    return States(
        energy=energy,
        encoder=create(key_encoder, encoder, image, config.vae),
        decoder=create(key_decoder, decoder, z, config.vae),
    )
