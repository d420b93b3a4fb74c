"""Losses as pure functions with known answers, a value per output or image, not their mean."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax


def bce(logits: chex.Array, is_data: bool) -> chex.Array:
    """Binary cross-entropy in nats of logits of "this is data", elementwise.

    `log(1 + exp(-l))` if they are of data, `log(1 + exp(l))` if not.
    """
    return jax.nn.softplus(-logits if is_data else logits)


def least_squares(outputs: chex.Array, is_data: bool) -> chex.Array:
    """`(output - 1)²` if they are of data, `output²` if not, elementwise (LSGAN)."""
    return jnp.square(outputs - 1.0 if is_data else outputs)


def absolute_error(images: chex.Array, truth: chex.Array, counts: chex.Array) -> chex.Array:
    """The mean of `|x - y|` over the pixels that count, and over channels, `[B]`.

    Args:
      images: `[B, H, W, C]`.
      truth: of the same shape.
      counts: `[B, H, W, 1]`, True where a pixel counts, at least one in each image.
    """
    error = jnp.mean(jnp.abs(images - truth), axis=-1, keepdims=True)
    return jnp.mean(error, axis=(1, 2, 3), where=counts)


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


def bits(logits: chex.Array, levels: chex.Array) -> chex.Array:
    """The exact negative log-likelihood of images, in bits per dimension, `[B]`.

    Args:
      logits: `[B, H, W, C, K]`, of the K levels of each value, given earlier values.
      levels: `[B, H, W, C]`, the true ones, 0 to K - 1.
    """
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, levels)
    return jnp.mean(nats, axis=(1, 2, 3)) / np.float32(np.log(2.0))


def pinball(error: chex.Array, tau: chex.Array, width: float = 0.0) -> chex.Array:
    """The quantile loss `|tau - 1{u < 0}| L(u)` of u = x - Q(tau), elementwise.

    Its mean over x is least where Q is the quantile tau of x; then, its mean over tau is half the
    continuous ranked probability score.

    Args:
      error: u.
      tau: in (0, 1), of the same shape.
      width: k of Huber's loss, u²/(2 k) within k of 0 and |u| - k/2 beyond; 0: L is |u|.
    """
    size = jnp.abs(error)
    if width:
        size = jnp.where(size <= width, jnp.square(error) / (2.0 * width), size - 0.5 * width)
    return jnp.abs(tau - (error < 0.0)) * size
