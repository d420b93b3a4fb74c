"""A VAE that learns from the data: a method, and a warm start for others."""

import dataclasses
import functools

import chex
import jax

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.devices import image_keys
from vaebm_jax.methods.parts import Metrics, draw, truth_loss, update_vae
from vaebm_jax.models.states import States
from vaebm_jax.samplers.keys import fold_in


def vae_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """One step of a VAE that learns from the data: no chain; an energy, if any, is not changed.

    Arguments and results are those of `train_step`, whose warm start this is
    (`config.warmup_steps`). `vae.guess_weight` and `mean_weight` are used as in `train_step`;
    `truth_weight`, `bound_weight` and `known_z_weight` are not: there is only the ELBO of the data,
    and no chain.
    `methods.METHODS` lists the other unused settings.
    """
    keys = image_keys(jax.random.fold_in(key, states.step), batch, axis_name)
    key_posterior, key_dropout, key_truth = (fold_in(keys, part) for part in range(3))
    config.freeze()
    bound_alone = dataclasses.replace(config.vae, bound_weight=1.0, truth_weight=0.0)
    config = dataclasses.replace(config, vae=bound_alone)
    encoder, decoder, metrics = update_vae(
        key_posterior,
        key_dropout,
        states.encoder,
        states.decoder,
        batch.image,
        batch.condition,
        config,
        axis_name,
        teaching=(functools.partial(truth_loss, key_truth, batch, config),),
    )
    return states.advance(encoder=encoder, decoder=decoder), metrics


def sample(
    keys: tuple[chex.PRNGKey, chex.PRNGKey],
    states: States,
    config: Config,
    num_samples: int,
    condition: chex.Array | None = None,
) -> dict[str, chex.Array]:
    """The decoder's images of z from the prior: `sample` in METHODS."""
    return {'ancestral': draw(keys[0], states.decoder, config, condition)}
