"""The variational auto-encoder: prior, inference, and the negative ELBO that is minimized."""

import chex
import jax.numpy as jnp

from vaebm_jax.samplers.keys import chain_keys, normal


def sample_prior(key: chex.PRNGKey, num_samples: int, latent_dim: int) -> chex.Array:
    """`z ~ N(0, I)`, `[num_samples, latent_dim]` (poster, "Ancestral Langevin Sampling", i).

    Args:
      key: one key, or `[num_samples]` keys, one per chain.
      num_samples: number of samples.
      latent_dim: d.
    """
    return normal(chain_keys(key, num_samples), (latent_dim,))


def reparameterize(key: chex.PRNGKey, mean: chex.Array, log_std: chex.Array) -> chex.Array:
    """`z ~ N(mean, exp(log_std)²)`, differentiable in both, `[B, d]`."""
    num_samples, latent_dim = mean.shape
    return mean + jnp.exp(log_std) * sample_prior(key, num_samples, latent_dim)


def rate(mean: chex.Array, log_std: chex.Array) -> chex.Array:
    """`KL(N(mean, exp(log_std)²) || N(0, I))` in nats per image, `[B]`."""
    terms = jnp.square(mean) + jnp.exp(2.0 * log_std) - 1.0 - 2.0 * log_std
    return 0.5 * jnp.sum(terms, axis=-1)


def distortion(x: chex.Array, reconstruction: chex.Array) -> chex.Array:
    """`|x - g(z)|²` summed over pixels, `[B]`."""
    chex.assert_equal_shape([x, reconstruction])
    return jnp.sum(jnp.square(x - reconstruction).reshape(x.shape[0], -1), axis=1)


def negative_elbo(distortion: chex.Array, rate: chex.Array, kl_weight: float) -> chex.Array:
    """`distortion + kl_weight · rate`, `[B]`: the loss of variational MCMC teaching.

    Divided by `kl_weight` and up to a constant it is minus the evidence lower bound of a decoder
    `q(x|z) = N(g(z), kl_weight / 2 · I)`, that is, the poster's L(α, β) at γ = 1, which minimizes
    `-log q(x) + γ KL(π(z|x) || q(z|x))` through
    `-log q(x) + KL(π(z|x) || q(z|x)) = E_π[-log q(x|z)] + KL(π(z|x) || N(0, I))`.
    Another γ would weigh the KL to the true posterior, which cannot be computed. `kl_weight`
    sets the decoder's variance instead: if it is large, reconstructions are coarse and z carries
    little information; if small, they are close and the posteriors cover the prior less evenly.
    """
    return distortion + kl_weight * rate
