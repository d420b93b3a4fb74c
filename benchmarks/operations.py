"""The operations of a training step, counted from shapes."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from vaebm_jax import create_states
from vaebm_jax.models.apply import decode, energy_of


def count(config):
    """Multiplications and additions of a step's convolutions and dense layers, plainly computed."""
    images, chains = config.batch_size, config.num_chains or config.batch_size
    size, channels = config.data.image_size, config.data.num_channels
    image, z = jnp.zeros((1, size, size, channels)), jnp.zeros((1, config.latent_dim))
    is_conditional = config.condition.kind != 'none'
    condition = jnp.zeros((1, size, size, channels + 1)) if is_conditional else None
    states = jax.eval_shape(functools.partial(create_states, config=config), jax.random.key(0))
    energy = of_layers(lambda state: energy_of(state, config, condition)(image), states.energy)
    encoder = of_layers(
        lambda state: state.apply_fn({'params': state.params}, image, condition), states.encoder
    )
    decoder = of_layers(lambda state: decode(state, z, condition), states.decoder)
    # Forward, to the parameters and to the input; the first layer's input needs no gradient, but
    # for a decoder's z.
    learn = lambda counts: 3 * sum(counts) - counts[0]
    learn_vae = learn(encoder) + (learn(decoder) if is_conditional else 3 * sum(decoder))
    return (
        chains * sum(decoder)
        + chains * config.langevin.num_steps * 2 * sum(energy)
        + (images + chains) * learn(energy)
        # A bound that does not count is still computed, for the metrics.
        + chains * (learn_vae if config.vae.bound_weight > 0 else sum(encoder) + sum(decoder))
        + chains * (config.vae.known_z_weight > 0) * learn(decoder)
        + images * (config.vae.truth_weight > 0) * learn_vae
        + images * (config.vae.guess_weight > 0) * learn(decoder)
        + 2 * images * (config.vae.mean_weight > 0) * learn(decoder)
    )


def of_layers(function, state):
    """Of each layer, the operations of one image."""
    counts = []

    def count(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if isinstance(context.module, nn.Dense | nn.Conv) and context.method_name == '__call__':
            kernel = context.module.variables['params']['kernel'].shape
            counts.append(2 * math.prod(y.shape[:-1]) * math.prod(kernel))
        return y

    with nn.intercept_methods(count):
        jax.eval_shape(function, state)
    return counts
