"""cVAE-GAN: encoder and decoder that rebuild the missing part, against a critic of patches.

J.-Y. Zhu et al., Toward multimodal image-to-image translation, 2017, after A. Larsen et al., 2016.
The encoder infers z from the true image; the decoder completes the condition with it. Both learn
from the critic (`energy`, least squares), with weight 10 (`vae.l1_weight`) from the mean absolute
error, and with 0.01 from the rate, in nats of an image. Then the critic learns, against the images
of the decoder before its update. Methods cvae_gan_pp and bicycle_gan add images of z from the
prior.

Deviations from the published system:
- the config's U-Net reads z by scaling and shifting its features; the authors' has z as further
  channels of every `down` row, and dropout. Its output is the initial fill plus a residual, without
  a tanh. It reads the initial fill and the mask;
- the encoder is the config's, without norm, and reads the condition, too;
- observed pixels are those of the condition, so the error is a mean over missing pixels alone;
- the critic (`models.networks.PatchCritic`) reads the image alone, as the authors' does by default,
  at two scales of the same table. The authors' second critic has half as many features, and sees
  means over 3 x 3 pixels;
- group norm in the generator and none elsewhere, in place of instance norm;
- the rate is a mean over images; the authors' sum is over their one image.
Networks, batch and rates are the config's; published were a z of 8, batches of 2, of which one
image is encoded, rates of 2e-4 and an `adam_b1` of 0.5.
"""

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.devices import image_keys, local_copy
from vaebm_jax.methods.losses import least_squares
from vaebm_jax.methods.parts import Metrics, learn, spreads
from vaebm_jax.methods.patches import critic_loss, patch_loss, recovery_error
from vaebm_jax.models import vae
from vaebm_jax.models.apply import decode, maps_of
from vaebm_jax.models.states import States, TrainState
from vaebm_jax.samplers.keys import fold_in

_L1_WEIGHT, _KL_WEIGHT = 10.0, 0.01


def cvae_gan_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """The update of encoder and decoder, then the critic's.

    Arguments and results are those of `vaebm.train_step`; the states have all three models.
    """
    keys = image_keys(jax.random.fold_in(key, states.step), batch, axis_name)
    local = local_copy(states, axis_name)
    samples, _, _ = rebuild(keys, local.encoder, local.decoder, batch)

    def coders_loss(models):
        return rebuilding_loss(keys, models, local.energy, batch, config)

    def judge(models):
        loss, metrics = critic_loss(models['energy'], batch, Batch(samples), least_squares, config)
        return loss, {'critic_loss': loss} | metrics

    coders = {name: states.models[name] for name in ('encoder', 'decoder')}
    coders, metrics = learn(coders, coders_loss, config, axis_name)
    critic, critic_metrics = learn({'energy': states.energy}, judge, config, axis_name)
    metrics |= critic_metrics | spreads({'spread': samples}, batch.image, axis_name)
    return states.advance(**coders, **critic), metrics


def rebuild(
    keys: chex.PRNGKey, encoder: TrainState, decoder: TrainState, batch: Batch
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Images of z inferred from the data, `[B, H, W, C]`, and q(z|x): mean and log deviation.

    Args:
      keys: one per image.
      encoder: q(z|x, c).
      decoder: g(z, c).
      batch: data and their condition.
    """
    key_posterior, key_dropout = (fold_in(keys, part) for part in range(2))
    posterior = encoder.apply_fn(
        {'params': encoder.params}, batch.image, batch.condition, key_dropout
    )
    z = vae.reparameterize(key_posterior, *posterior)
    return decode(decoder, z, batch.condition), *posterior


def rebuilding_loss(
    keys: chex.PRNGKey,
    models: dict[str, TrainState],
    critic: TrainState,
    batch: Batch,
    config: Config,
) -> tuple[chex.Array, Metrics]:
    """The loss of encoder and decoder on the data, and its parts.

    Args:
      keys: one per image.
      models: encoder and decoder.
      critic: which judges the rebuilt images.
      batch: data and their condition.
      config: the experiment.
    """
    images, mean, log_std = rebuild(keys, models['encoder'], models['decoder'], batch)
    from_critic = jnp.mean(patch_loss(maps_of(critic, config)(images), True, least_squares))
    error, rate = recovery_error(images, batch), jnp.mean(vae.rate(mean, log_std))
    loss = from_critic + (config.vae.l1_weight or _L1_WEIGHT) * error + _KL_WEIGHT * rate
    return loss, {'generator_loss': from_critic, 'l1': error, 'rate': rate}
