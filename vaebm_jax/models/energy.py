"""The energy U of p(x) = exp(-U(x)) / Z, and its maximum-likelihood loss."""

from collections.abc import Callable
from typing import Any

import chex
import jax.numpy as jnp


def reference_energy(
    x: chex.Array, reference_std: float, reference_mean: float = 0.0
) -> chex.Array:
    """`|x - m|² / (2 σ²)` in nats, `[B]`: -log N(x; m, σ² I) without its constant."""
    square = jnp.square(x - reference_mean).reshape(x.shape[0], -1)
    return jnp.sum(square, axis=1) / (2.0 * reference_std**2)


def energy(
    f: chex.Array,
    x: chex.Array,
    *,
    reference_std: float,
    scale: float = 0.0,
    reference_mean: float = 0.0,
) -> chex.Array:
    """`U(x) = |x - m|² / (2 σ²) - scale · f(x)` in nats, `[B]`.

    The network's f tilts a Gaussian reference of standard deviation σ. With `scale=1` this is the
    authors' form, whose f must reach 1e6 nats. With `scale=0`, which stands for 1 / σ², it is the
    normalized form `(|x - m|² / 2 - f(x)) / σ²`: the same family, but f is of order one and an
    ordinary learning rate works. The authors' mean m is 0, a grey image; if most pixels have
    another value, set m to it, so that f need not learn to undo the reference there.

    Args:
      f: the network's outputs, summed, `[B]`.
      x: images `[B, H, W, C]`.
      reference_std: σ; 0 leaves the reference term out, and then `scale` must be given.
      scale: the factor of f; 0 stands for 1 / σ².
      reference_mean: m, the value of every pixel of the reference's mean.
    """
    chex.assert_shape(f, (x.shape[0],))
    if not reference_std:
        if not scale:
            raise ValueError('energy needs a scale where reference_std is 0, got scale=0')
        return -scale * f
    reference = reference_energy(x, reference_std, reference_mean)
    return reference - (scale or reference_std**-2) * f


def make_energy_fn(
    apply_fn: Callable[..., chex.Array],
    params: Any,
    condition: chex.Array | None = None,
    *,
    reference_std: float,
    scale: float = 0.0,
    reference_mean: float = 0.0,
) -> Callable[[chex.Array], chex.Array]:
    """An energy with given parameters and condition: `energy_fn(x) -> [B]` nats."""

    def energy_fn(x):
        f = apply_fn({'params': params}, x, condition)
        return energy(f, x, reference_std=reference_std, scale=scale, reference_mean=reference_mean)

    return energy_fn


def mle_loss(energy_data: chex.Array, energy_samples: chex.Array) -> chex.Array:
    """`E_data[U] - E_samples[U]`, whose gradient is that of KL(p_data || p_theta).

    Poster, "Analysis by synthesis": lowers the energy of data, raises that of samples.

    Args:
      energy_data: `[n]` nats at observed images.
      energy_samples: `[m]` nats at samples of the model, which are constants here.
    """
    return jnp.mean(energy_data) - jnp.mean(energy_samples)
