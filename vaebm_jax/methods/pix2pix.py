"""pix2pix: a generator that completes an image, against a critic of (condition, image) patches.

P. Isola, J.-Y. Zhu, T. Zhou, A. A. Efros, Image-to-image translation with conditional adversarial
networks, 2017. The critic, the role `energy`, gives a map of logits of "this is data"
(`models.networks.PatchCritic`); the generator is the decoder. It learns from the critic and, with
weight 100 (`vae.l1_weight`), from the mean absolute error.

Deviations from the published system:
- the generator is the config's U-Net. It reads z by scaling and shifting its features, and z from
  N(0, I) takes the place of dropout in training and sampling; as with dropout, recoveries of one
  image hardly differ. Its output is the initial fill plus a residual, without a tanh;
- it reads the initial fill and the mask (`data/conditions`); the authors' loader fills a hole with
  white and has no mask;
- observed pixels are those of the condition, so the error is a mean over missing pixels alone, not
  over the image, and the critic never sees others;
- group norm in the generator and none in the critic, in place of batch norm.
Networks, batch and rates are the config's; published were batches of 1, rates of 2e-4 and an
`adam_b1` of 0.5. Of z a dimension of 1 would do.
"""

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.devices import image_keys, local_copy
from vaebm_jax.methods.losses import bce
from vaebm_jax.methods.parts import Metrics, draw, learn, spreads
from vaebm_jax.methods.patches import critic_loss, patch_loss, recovery_error
from vaebm_jax.models.apply import maps_of
from vaebm_jax.models.states import States

_L1_WEIGHT = 100.0


def pix2pix_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """The critic's update, then the generator's, both of the same z.

    Arguments and results are those of `vaebm.train_step`; the states have an energy and a decoder.
    """
    keys = image_keys(jax.random.fold_in(key, states.step), batch, axis_name)
    samples = draw(keys, local_copy(states.decoder, axis_name), config, batch.condition)

    def judge(models):
        drawn = Batch(samples, batch.condition)
        loss, metrics = critic_loss(models['energy'], batch, drawn, bce, config)
        return 0.5 * loss, {'critic_loss': 0.5 * loss} | metrics

    critic, metrics = learn({'energy': states.energy}, judge, config, axis_name)
    judged = maps_of(local_copy(critic['energy'], axis_name), config, batch.condition)

    def draw_loss(models):
        images = draw(keys, models['decoder'], config, batch.condition)
        from_critic = jnp.mean(patch_loss(judged(images), True, bce))
        error = recovery_error(images, batch)
        loss = from_critic + (config.vae.l1_weight or _L1_WEIGHT) * error
        return loss, {'generator_loss': from_critic, 'l1': error}

    generator, generator_metrics = learn({'decoder': states.decoder}, draw_loss, config, axis_name)
    metrics |= generator_metrics | spreads({'spread': samples}, batch.image, axis_name)
    return states.advance(**critic, **generator), metrics
