"""Untrained models from a config, one for each role of a method."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from vaebm_jax.config import Config, EnergyConfig, ScheduleConfig
from vaebm_jax.models import spectral
from vaebm_jax.models.networks import Decoder, Encoder, EnergyNet, PatchCritic
from vaebm_jax.models.pixelcnn import NUM_LEVELS, PixelCNN
from vaebm_jax.models.states import TrainState
from vaebm_jax.samplers.keys import branch


def learning_rate(peak: float, schedule: ScheduleConfig, num_steps: int) -> optax.Schedule:
    """The learning rate at each step of a run of `num_steps`, starting from `peak`."""
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


def energy_steps(config: Config) -> int:
    """The number of steps over which the energy's learning rate falls."""
    return config.schedule.energy_steps or config.num_steps


# Functions are equal only to themselves. Made once for equal settings, they let states of several
# seeds share one compilation, and be stacked and compared by `jax.tree.map`.


@functools.lru_cache
def _functions(network):
    return jax.jit(network.init), network.apply


@functools.lru_cache
def _adam(section, schedule, num_steps, num_updates):
    """The schedule is one of iterations, each of `num_updates`."""
    rate = at_step = learning_rate(section.learning_rate, schedule, num_steps)
    if num_updates > 1:
        rate = lambda count: at_step(count // num_updates)
    steps = [optax.adam(rate, b1=section.adam_b1, b2=section.adam_b2)]
    unit = 1.0
    if isinstance(section, EnergyConfig):
        unit = section.scale or section.reference_std**-2
        if section.max_grad_element:
            steps.insert(0, clip_by_moment(section.adam_b2, section.max_grad_element * unit))
    if section.max_grad_norm:
        steps.insert(0, optax.clip_by_global_norm(section.max_grad_norm * unit))
    return optax.chain(*steps) if len(steps) > 1 else steps[0]


class Moment(NamedTuple):
    """The state of `clip_by_moment`: number of updates, and the mean of squares."""

    count: chex.Array
    squares: chex.ArrayTree


def clip_by_moment(decay: float, limit: float) -> optax.GradientTransformation:
    """Clips each element of a gradient to three standard deviations of those before, and `limit`.

    To `±(3 sqrt(v / (1 - decay^t)) + limit)`, where v is the decaying mean of squares of the
    clipped elements before the t-th update, as in Adam's second moment (Y. Du, I. Mordatch, 2019:
    limit 0.1).
    """

    def update(grads, state, params=None):
        del params
        count = state.count + 1

        def clip(grad, square):
            bound = 3.0 * jnp.sqrt(square / (1.0 - decay**count)) + limit
            return jnp.clip(grad, -bound, bound).astype(grad.dtype)

        grads = jax.tree.map(clip, grads, state.squares)
        squares = optax.tree.update_moment(grads, state.squares, decay, 2)
        return grads, Moment(count, squares)

    zeros = lambda params: jax.tree.map(jnp.zeros_like, params)
    return optax.GradientTransformation(
        lambda params: Moment(jnp.zeros((), jnp.int32), zeros(params)), update
    )


def _energy(config, **common):
    return EnergyNet(config.network.energy, config.network.energy_outputs, **common)


def _patch_critic(config, **common):
    return PatchCritic(config.network.energy, **common)


def _image_critic(config, **common):
    return PatchCritic(config.network.energy, num_scales=2, reads_condition=False, **common)


def _encoder(config, **common):
    return Encoder(config.network.encoder, config.latent_dim, **common)


def _decoder(config, **common):
    size, table = config.data.image_size, config.network
    return Decoder(
        table.decoder,
        (size, size, config.data.num_channels),
        table.decoder_norm,
        table.decoder_output,
        limit=1.0 + config.data.headroom,
        modulated=table.decoder_modulated,
        **common,
    )


def _likelihood(config, **common):
    return PixelCNN(config.network.likelihood, NUM_LEVELS, **common)


def _quantiles(config, **common):
    return PixelCNN(config.network.likelihood, 1, reads_tau=True, **common)


class Role(NamedTuple):
    """The kind of one of a method's networks.

    Attributes:
      network: `(config, activation, dtype, init_std, convolution) -> flax module`, called with its
        input and a condition or None.
      section: of the config, for its optimizer: energy or vae.
      takes: its input, image or z.
      is_critic: of section energy: as in `TrainState`.
      num_updates: of the config: the number of its updates in an iteration.
    """

    network: Callable[..., nn.Module]
    section: str
    takes: str = 'image'
    is_critic: bool = False
    num_updates: Callable[[Config], int] = lambda config: 1


ENERGY = Role(_energy, 'energy')
CRITIC = Role(_energy, 'energy', is_critic=True)
PATCH_CRITIC = Role(_patch_critic, 'energy', is_critic=True)
IMAGE_CRITIC = Role(_image_critic, 'energy', is_critic=True)  # Of patches at two scales.
ENCODER = Role(_encoder, 'vae')
DECODER = Role(_decoder, 'vae', takes='z')
LIKELIHOOD = Role(_likelihood, 'vae')
QUANTILES = Role(_quantiles, 'vae')


def create_models(
    key: chex.PRNGKey, config: Config, roles: dict[str, Role], condition: chex.Array | None = None
) -> dict[str, TrainState]:
    """A TrainState for each role, at step 0: initial parameters and an Adam.

    Args:
      key: of the initial parameters; those of a role do not depend on the other roles.
      config: the experiment.
      roles: by name.
      condition: as in `methods.create_states`.
    """
    size, channels = config.data.image_size, config.data.num_channels
    if condition is None and config.condition.kind != 'none':
        condition = jnp.zeros((1, size, size, channels + 1), jnp.float32)
    examples = {
        'image': jnp.zeros((1, size, size, channels), jnp.float32),
        'z': jnp.zeros((1, config.latent_dim), jnp.float32),
    }
    usual = dict(zip(('energy', 'encoder', 'decoder'), jax.random.split(key, 3), strict=True))
    table = config.network
    common = dict(
        activation=table.activation,
        dtype=config.dtype,
        init_std=table.init_std,
        convolution=config.convolution,
    )

    def create(name, role):
        init, apply = _functions(role.network(config, **common))
        role_key = usual[name] if name in usual else branch(key, name)
        params = init(role_key, examples[role.takes], condition)['params']
        section = getattr(config, role.section)
        if role.is_critic:
            section = dataclasses.replace(section, scale=1.0)
        num_steps = energy_steps(config) if role.section == 'energy' else config.num_steps
        adam = _adam(section, config.schedule, num_steps, role.num_updates(config))
        model = TrainState.create(apply_fn=apply, params=params, tx=adam, is_critic=role.is_critic)
        if role.section == 'energy' and config.energy.spectral_norm:
            model = model.replace(extra=spectral.start(params))
        return model

    return {name: create(name, role) for name, role in roles.items()}
