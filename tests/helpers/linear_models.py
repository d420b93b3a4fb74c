"""Models whose samples have a closed form."""

import jax
import jax.numpy as jnp
import optax

from vaebm_jax.models.states import TrainState


def linear_decoder(variables, z, condition):
    """`W z`, as images of 2 x 2 pixels."""
    return (z @ variables['params']['w'].T).reshape(-1, 2, 2, 1)


def model(apply_fn, **params):
    """With plain gradient steps of rate 1."""
    params = jax.tree.map(jnp.asarray, params)
    return TrainState.create(apply_fn=apply_fn, params=params, tx=optax.sgd(1.0))
