"""Losses as pure functions, one value per output or image; the caller takes the mean."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp


def bce(logits: chex.Array, is_data: bool) -> chex.Array:
    """Binary cross-entropy in nats of logits of "this is data", elementwise.

    `log(1 + exp(-l))` if they are of data, `log(1 + exp(l))` if not.
    """
    return jax.nn.softplus(-logits if is_data else logits)


def least_squares(outputs: chex.Array, target: float) -> chex.Array:
    """`(output - target)²`, elementwise; the targets of LSGAN are 1 for data and 0 for samples."""
    return jnp.square(outputs - target)


def gradient_penalty(energy_fn: Callable[[chex.Array], chex.Array], x: chex.Array) -> chex.Array:
    """`(|∇U(x)| - 1)²`, `[B]`, the norm taken over all pixels and channels of an image.

    Args:
      energy_fn: images to `[B]`; its sign does not matter.
      x: images `[B, H, W, C]`.
    """
    grad = jax.grad(lambda x: jnp.sum(energy_fn(x)))(x)
    square = jnp.sum(jnp.square(grad), axis=(1, 2, 3))
    # The square root has no derivative at 0, where a constant energy is.
    return jnp.square(jnp.sqrt(square + 1e-12) - 1.0)
