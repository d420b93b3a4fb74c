"""Cooperative networks: a generator starts the chains of an energy, and learns from their ends.

J. Xie, Y. Lu, R. Gao, S.-C. Zhu, Y. N. Wu, Cooperative training of descriptor and generator
networks, 2018. The poster's method without its encoder: a chain to x started from g(z), so the
generator learns to map that z to x. With `langevin.latent_steps`, z is first moved by Langevin
dynamics on its posterior given x, as in the paper; the authors' code has 0 steps as its default.

Where this differs from the authors' code:

* The latent chain's `|x - g(z)|² / (2 s²)` is a sum over the pixels of each chain. The code takes
  the mean over the n chains before the gradient, so each z is inferred with s √n in place of s.
* The generator has group norm or none. The code's batch norm makes an image depend on the others.
* Sizes, rates and the chain are the config's. The code has 15 steps of δ = 0.002 with σ = 0.016,
  100 outputs of f (`network.energy_outputs`) and Adam with b1 = 0.5.
"""

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.chains import ancestral_langevin_sample
from vaebm_jax.methods.devices import chain_condition, local_chains, local_copy
from vaebm_jax.methods.parts import Metrics, learn, learn_from_chains
from vaebm_jax.models.apply import decode
from vaebm_jax.models.states import States, TrainState
from vaebm_jax.models.vae import distortion, sample_prior
from vaebm_jax.samplers.keys import chain_keys
from vaebm_jax.samplers.langevin import langevin_sample

PIXEL_STD = 0.3  # s, of a pixel around the generator's.


def coopnets_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
    guess_weight: float = 0.0,
) -> tuple[States, Metrics]:
    """Ancestral Langevin sampling; the energy learns, then the generator.

    Arguments and results are those of `vaebm.train_step`; the states have an energy and a decoder.
    `guess_weight` is that of `update_decoder`, with the batch's images as the truth.
    """
    key = jax.random.fold_in(key, states.step)
    num_chains, first = local_chains(config, batch, axis_name)
    keys_prior, keys_langevin, keys_latent = (
        chain_keys(part, num_chains, first) for part in jax.random.split(key, 3)
    )
    condition = chain_condition(batch.condition, num_chains)

    local = local_copy(states, axis_name)
    chains = ancestral_langevin_sample(
        keys_prior, keys_langevin, local, config, num_chains, condition
    )
    refined = chains[1]
    energy, energy_metrics = learn_from_chains(
        key, states.energy, batch, chains, first, config, axis_name, condition
    )
    z = sample_prior(keys_prior, num_chains, config.latent_dim)
    if config.langevin.latent_steps:
        z = infer(keys_latent, local.decoder, z, refined, config, condition)
    truth = (
        jnp.repeat(batch.image, num_chains // len(batch.image), axis=0) if guess_weight else None
    )
    decoder, decoder_metrics = update_decoder(
        states.decoder, z, refined, config, axis_name, condition, truth, guess_weight
    )
    states = states.advance(energy=energy, decoder=decoder)
    return states, energy_metrics | decoder_metrics


def infer(
    key: chex.PRNGKey,
    decoder: TrainState,
    z: chex.Array,
    x: chex.Array,
    config: Config,
    condition: chex.Array | None = None,
) -> chex.Array:
    """z after `latent_steps` of Langevin dynamics on `|z|²/2 + |x - g(z)|² / (2 s²)`, `[B, d]`.

    Args:
      key: one key, or one per chain.
      decoder: g.
      z: starting points, `[B, d]`.
      x: images `[B, H, W, C]`.
      config: `config.langevin` is the chain.
      condition: of the images, or None.
    """

    def energy_fn(z):
        prior = 0.5 * jnp.sum(jnp.square(z), axis=1)
        return prior + distortion(x, decode(decoder, z, condition)) / (2.0 * PIXEL_STD**2)

    langevin = config.langevin
    settings = dict(num_steps=langevin.latent_steps, step_size=langevin.latent_step_size)
    return langevin_sample(key, energy_fn, z, **settings)[0]


def update_decoder(
    decoder: TrainState,
    z: chex.Array,
    samples: chex.Array,
    config: Config,
    axis_name: str | None = None,
    condition: chex.Array | None = None,
    truth: chex.Array | None = None,
    guess_weight: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """One step on the mean over chains of `|x - g(z)|² / (2 s²)`, summed over pixels.

    With a truth y, `guess_weight` times the mean over chains of `|y - g(z)|`, the sum of a pixel's
    absolute values, is added.

    Args:
      decoder: g.
      z: `[B, d]`, constants.
      samples: x, refined images `[B, H, W, C]`, constants.
      config: the experiment.
      axis_name: the mapped axis of devices, if there is one.
      condition: of the images, or None.
      truth: the true images, `[B, H, W, C]`, or None.
      guess_weight: the factor.
    """

    def loss_fn(models):
        images = decode(models['decoder'], z, condition)
        error = jnp.mean(distortion(samples, images))
        loss, metrics = error / (2.0 * PIXEL_STD**2), {'distortion': error}
        if truth is not None:
            guess = jnp.mean(jnp.sum(jnp.abs(truth - images), axis=(1, 2, 3)))
            loss, metrics = loss + guess_weight * guess, metrics | {'guess_error': guess}
        return loss, metrics

    models, metrics = learn({'decoder': decoder}, loss_fn, config, axis_name)
    return models['decoder'], metrics
