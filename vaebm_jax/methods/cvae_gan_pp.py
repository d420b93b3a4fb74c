"""cVAE-GAN++: cVAE-GAN, and a second critic, of recoveries with z from the prior.

J.-Y. Zhu et al., Toward multimodal image-to-image translation, 2017. No public code trains it under
this name; here it is their BicycleGAN without the loss of z, with two critics, as they are there.
The second critic, `energy_prior`, has the table of the first and its own parameters. As in the
authors' code its data are not the true images of the recoveries that it judges: the images of even
index in the batch are recovered with z from the prior, those of odd index are its data. All images
are encoded; in the authors' code, whose batch is 2, one is. What else differs: `methods.cvae_gan`.
"""

from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods import needs
from vaebm_jax.methods.cvae_gan import rebuild, rebuilding_loss
from vaebm_jax.methods.devices import image_keys, local_copy, rows_of_part
from vaebm_jax.methods.losses import least_squares
from vaebm_jax.methods.parts import Metrics, learn, spreads
from vaebm_jax.methods.patches import average, critic_loss, patch_loss
from vaebm_jax.models.apply import decode, maps_of
from vaebm_jax.models.states import States
from vaebm_jax.models.vae import sample_prior
from vaebm_jax.samplers.keys import fold_in


def two_images(config: Config) -> Iterator[tuple[str, str]]:
    """`needs` in METHODS."""
    yield from needs.patches(config)
    if config.batch_size < 2:
        yield 'batch_size', f'at least 2 with method {config.method}: an image of each half'


def cvae_gan_pp_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
    z_weight: float = 0.0,
) -> tuple[States, Metrics]:
    """The update of encoder and decoder, then both critics'.

    Arguments and results are those of `vaebm.train_step`; the states have all four models.
    `z_weight`, of BicycleGAN, is the factor of the mean absolute error of z as inferred from a
    recovery, from which the decoder learns and the encoder does not.
    """
    keys = image_keys(jax.random.fold_in(key, states.step), batch, axis_name)
    local = local_copy(states, axis_name)
    samples, _, _ = rebuild(keys, local.encoder, local.decoder, batch)
    (even, weights), (odd, data_weights) = (
        rows_of_part(part, 2, batch, axis_name) for part in range(2)
    )
    z = sample_prior(fold_in(keys, 2)[even], len(even), config.latent_dim)
    condition = batch.condition[even]
    recovered = decode(local.decoder, z, condition)

    def coders_loss(models):
        loss, metrics = rebuilding_loss(keys, models, local.energy, batch, config)
        images = decode(models['decoder'], z, condition)
        maps = maps_of(local.models['energy_prior'], config)(images)
        from_prior = average(patch_loss(maps, True, least_squares), weights)
        loss, metrics = loss + from_prior, metrics | {'prior/generator_loss': from_prior}
        if z_weight:
            # If the encoder learned from it, both could hide z in the image.
            encoder = local.encoder
            mean, _ = encoder.apply_fn({'params': encoder.params}, images, condition)
            error = average(jnp.mean(jnp.abs(mean - z), axis=1), weights)
            loss, metrics = loss + z_weight * error, metrics | {'prior/z_error': error}
        return loss, metrics

    def judge(models):
        loss, metrics = critic_loss(models['energy'], batch, Batch(samples), least_squares, config)
        of_prior, _ = critic_loss(
            models['energy_prior'],
            Batch(batch.image[odd]),
            Batch(recovered),
            least_squares,
            config,
            (data_weights, weights),
        )
        return loss + of_prior, metrics | {'critic_loss': loss, 'prior/critic_loss': of_prior}

    pair = lambda *names: {name: states.models[name] for name in names}
    coders, metrics = learn(pair('encoder', 'decoder'), coders_loss, config, axis_name)
    critics, critic_metrics = learn(pair('energy', 'energy_prior'), judge, config, axis_name)
    metrics |= critic_metrics | spreads({'spread': samples}, batch.image, axis_name)
    return states.advance(**coders, **critics), metrics
