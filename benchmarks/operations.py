"""The operations of a training step, counted from shapes."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from vaebm_jax import create_states
from vaebm_jax.sampling import decode, energy_of


def count(config):
    """Multiplications and additions of a step's convolutions and dense layers, plainly computed."""
    chains = config.num_chains or config.batch_size
    size = config.data.image_size
    image = jnp.zeros((1, size, size, config.data.num_channels))
    states = jax.eval_shape(functools.partial(create_states, config=config), jax.random.key(0))
    energy = of_layers(lambda state: energy_of(state, config)(image), states.energy)
    encoder = of_layers(
        lambda state: state.apply_fn({'params': state.params}, image), states.encoder
    )
    decoder = of_layers(
        lambda state: decode(state, jnp.zeros((1, config.latent_dim))), states.decoder
    )
    # Forward, to the parameters and to the input; the first layer's input needs no gradient.
    learn = lambda counts: 3 * sum(counts) - counts[0]
    return (
        chains * sum(decoder)
        + chains * config.langevin.num_steps * 2 * sum(energy)
        + (config.batch_size + chains) * learn(energy)
        + chains * (learn(encoder) + 3 * sum(decoder))
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
