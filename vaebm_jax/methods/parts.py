"""Updates and losses shared by several methods."""

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import optax

from vaebm_jax.config import Config
from vaebm_jax.data.augment import augment
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.devices import image_keys, local_copy, mean_over_devices
from vaebm_jax.models import spectral, vae
from vaebm_jax.models.apply import decode, energy_of
from vaebm_jax.models.energy import mle_loss
from vaebm_jax.models.states import TrainState
from vaebm_jax.samplers.keys import branch, chain_keys, fold_in, normal

_OVERSHOT = 1.1  # Beyond the data's range, times this, is where chains that diverge go.

Metrics = dict[str, chex.Array]
Loss = Callable[[TrainState, TrainState], chex.Array]


def learn(
    models: dict[str, TrainState],
    loss_fn: Callable[[dict[str, TrainState]], tuple[chex.Array, Metrics]],
    config: Config,
    axis_name: str | None = None,
) -> tuple[dict[str, TrainState], Metrics]:
    """One optimizer step of some models on one loss, with the gradient's mean over devices.

    Args:
      models: the models to update, by name.
      loss_fn: maps the models, with the parameters to differentiate, to the loss on this device's
        share, and metrics.
      config: `config.ema_decay` is that of the averages.
      axis_name: the mapped axis of devices, if there is one.

    Returns:
      The models after the step, and the mean metrics with `grad_norm/<name>` of each.
    """

    def loss_of(params):
        return loss_fn({name: models[name].replace(params=params[name]) for name in models})

    params = local_copy({name: model.params for name, model in models.items()}, axis_name)
    grads, metrics = jax.grad(loss_of, has_aux=True)(params)
    grads, metrics = mean_over_devices((grads, metrics), axis_name)
    metrics |= {f'grad_norm/{name}': optax.tree.norm(grads[name]) for name in models}
    models = {name: model.advance(grads[name], config.ema_decay) for name, model in models.items()}
    return {name: _iterated(model) for name, model in models.items()}, metrics


def _iterated(model):
    """The model after its parameters changed: `extra` has vectors of the spectral norm, if any."""
    if model.extra is None:
        return model
    return model.replace(extra=spectral.iterate(model.params, model.extra))


def update_energy(
    state: TrainState,
    data: Batch,
    samples: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One maximum-likelihood step: lowers U on `data`, raises it on `samples` (poster, eq. 2).

    Args:
      state: the energy.
      data: observed images, with their condition.
      samples: refined images, constants, with theirs; there may be another number of them.
      config: the experiment.
      axis_name: the mapped axis of devices, if there is one.
    """

    def loss_fn(models):
        model = models['energy']
        energy_data, energy_samples = (
            energy_of(model, config, part.condition)(part.image) for part in (data, samples)
        )
        means = {'energy_data': jnp.mean(energy_data), 'energy_samples': jnp.mean(energy_samples)}
        loss = mle_loss(energy_data, energy_samples)
        if config.energy.l2:
            squares = jnp.mean(jnp.square(energy_data)) + jnp.mean(jnp.square(energy_samples))
            loss += config.energy.l2 / config.energy.scale * squares
        return loss, means

    models, metrics = learn({'energy': state}, loss_fn, config, axis_name)
    return models['energy'], metrics


def learn_from_chains(
    key: chex.PRNGKey,
    energy: TrainState,
    batch: Batch,
    chains: tuple[chex.Array, chex.Array, dict[str, chex.Array]],
    first: chex.Numeric,
    config: Config,
    axis_name: str | None = None,
    condition: chex.Array | None = None,
) -> tuple[TrainState, Metrics]:
    """`update_energy` on the data against the ends of chains, and metrics of these chains.

    Data and samples are changed at random as configured (`energy.data_noise`, `start_noise`,
    `augment`).

    Args:
      key: this iteration's, the same on every device.
      energy: the model.
      batch: this device's images.
      chains: their starts, their ends and `langevin_sample`'s info, of this device.
      first: the global index of this device's first chain.
      config: the experiment.
      axis_name: the mapped axis of devices, if there is one.
      condition: of the chains, or None.
    """
    starts, refined, info = chains
    keys_noise, keys_data = (
        image_keys(branch(key, name), batch, axis_name) for name in ('data noise', 'energy data')
    )
    keys_samples = chain_keys(branch(key, 'energy samples'), len(refined), first)
    observed = with_noise(keys_noise, batch, config.energy.data_noise)
    observed = disguised(keys_data, observed, config, energy.step)
    samples = disguised(keys_samples, Batch(refined, condition), config, energy.step)
    energy, energy_metrics = update_energy(energy, observed, samples, config, axis_name)

    metrics = chain_metrics(starts, refined, info, batch.image, config, axis_name)
    start = metrics.pop('langevin/energy_start')
    if not is_disguised(config):  # Otherwise the two energies are not of the same images.
        metrics['langevin/energy_drop'] = start - energy_metrics['energy_samples']
    return energy, energy_metrics | metrics


def with_noise(keys: chex.PRNGKey, batch: Batch, std: chex.Numeric) -> Batch:
    """The batch, its images with normal noise of standard deviation `std`; one key per image."""
    if isinstance(std, float) and not std:
        return batch
    noise = normal(keys, batch.image.shape[1:])
    return batch.replace(image=batch.image + std * noise)


def is_disguised(config: Config) -> bool:
    """Whether the energy's update gets images that are changed at random."""
    return bool(config.energy.start_noise or config.energy.augment)


def disguised(keys: chex.PRNGKey, batch: Batch, config: Config, num_updates: chex.Numeric) -> Batch:
    """Data or samples as the energy's update gets them: changed at random, both in the same way.

    By the noise of `energy.start_noise`, then by `energy.augment`.

    Args:
      keys: one per image.
      batch: the images and their condition.
      config: the experiment.
      num_updates: the number of the energy's updates so far.
    """
    if not is_disguised(config):
        return batch
    energy, std = config.energy, 0.0
    if energy.start_noise:
        left = 1.0 - num_updates / energy.start_noise_steps
        std = energy.start_noise * jnp.maximum(left, 0.0)
    batch = with_noise(fold_in(keys, 0), batch, std)
    image, condition = augment(fold_in(keys, 1), energy.augment, batch.image, batch.condition)
    return batch.replace(image=image, condition=condition)


def update_vae(
    key_posterior: chex.PRNGKey,
    key_dropout: chex.PRNGKey,
    encoder: TrainState,
    decoder: TrainState,
    samples: chex.Array,
    condition: chex.Array | None,
    config: Config,
    axis_name: str | None = None,
    teaching: Sequence[Loss] = (),
) -> tuple[TrainState, TrainState, Metrics]:
    """One step of variational MCMC teaching: the VAE's ELBO on refined images (poster, eq. 3).

    Args:
      key_posterior: for z given x; one key, or one per sample.
      key_dropout: for the encoder's dropout rows, one per sample.
      encoder: the inference model.
      decoder: the generator.
      samples: refined images `[B', H, W, C]`; the poster's VAE learns only from these.
      condition: of the samples, or None.
      config: the experiment.
      axis_name: the mapped axis of devices, if there is one.
      teaching: further losses, added to the ELBO's: `known_z_loss`, `truth_loss` of the data.
    """

    def loss_fn(models):
        models = models['encoder'], models['decoder']
        bound, metrics = vae_loss(key_posterior, key_dropout, *models, samples, condition, config)
        # With weight 0 it is only a metric: 0 times it would still be differentiated.
        loss = config.vae.bound_weight * bound if config.vae.bound_weight else 0.0
        return loss + sum(extra(*models) for extra in teaching), metrics

    models, metrics = learn({'encoder': encoder, 'decoder': decoder}, loss_fn, config, axis_name)
    return models['encoder'], models['decoder'], metrics


def vae_loss(
    key_posterior: chex.PRNGKey,
    key_dropout: chex.PRNGKey,
    encoder: TrainState,
    decoder: TrainState,
    images: chex.Array,
    condition: chex.Array | None,
    config: Config,
) -> tuple[chex.Array, Metrics]:
    """The mean of `vae.negative_elbo` over images, with one sample of z each, and its two parts."""
    mean, log_std = encoder.apply_fn({'params': encoder.params}, images, condition, key_dropout)
    z = vae.reparameterize(key_posterior, mean, log_std)
    rate = vae.rate(mean, log_std)
    distortion = vae.distortion(images, decode(decoder, z, condition))
    loss = vae.negative_elbo(distortion, rate, config.vae.kl_weight)
    return jnp.mean(loss), {'rate': jnp.mean(rate), 'distortion': jnp.mean(distortion)}


def known_z_loss(
    keys: chex.PRNGKey,
    refined: chex.Array,
    condition: chex.Array | None,
    config: Config,
    encoder: TrainState,
    decoder: TrainState,
) -> chex.Array:
    """`known_z_weight` times the mean of |x - g(z)|², where the chain to x started from g(z).

    Args:
      keys: the keys of the chains' z, one per chain.
      refined: the last points of the chains, `[B, H, W, C]`.
      condition: of the chains, or None.
      config: the experiment.
      encoder: not used: z is known, not inferred.
      decoder: the generator.
    """
    del encoder
    if not config.vae.known_z_weight:
        return 0.0
    return config.vae.known_z_weight * ancestral_error(keys, refined, condition, config, decoder)


def ancestral_error(
    keys: chex.PRNGKey,
    images: chex.Array,
    condition: chex.Array | None,
    config: Config,
    decoder: TrainState,
) -> chex.Array:
    """The mean of |x - g(z)|² over images `[B, H, W, C]`, with z from the prior, one key each."""
    return jnp.mean(vae.distortion(images, draw(keys, decoder, config, condition)))


def mean_error(
    keys: chex.PRNGKey,
    images: chex.Array,
    condition: chex.Array | None,
    config: Config,
    decoder: TrainState,
) -> chex.Array:
    """The mean of |x - E g(z)|² over images, estimated from two samples of z each.

    For independent z and z' the mean of (x - g(z)) · (x - g(z')) is that distance: unlike the
    distance from g(z), it does not grow with the variance of g(z).
    Arguments are those of `ancestral_error`.
    """
    first, second = (
        images - draw(fold_in(keys, part), decoder, config, condition) for part in range(2)
    )
    return jnp.mean(jnp.sum((first * second).reshape(images.shape[0], -1), axis=1))


def truth_loss(
    keys: chex.PRNGKey, batch: Batch, config: Config, encoder: TrainState, decoder: TrainState
) -> chex.Array:
    """The VAE's losses on the data, which the poster does not have.

    `truth_weight` times its negative ELBO on the data, and `guess_weight` times the squared
    distance from ancestral samples, `g(z, c)` with z from the prior, to the truth (J. Xie et al.,
    Cooperative training of fast thinking initializer and slow thinking solver for conditional
    learning, 2021), and `mean_weight` times that from their mean.

    Args:
      keys: one per image.
      batch: data and their condition.
      config: the experiment.
      encoder: the inference model.
      decoder: the generator.
    """
    key_posterior, key_dropout, key_prior, key_mean = (fold_in(keys, part) for part in range(4))
    models, loss = (encoder, decoder), 0.0
    if config.vae.truth_weight:
        bound, _ = vae_loss(
            key_posterior, key_dropout, *models, batch.image, batch.condition, config
        )
        loss += config.vae.truth_weight * bound
    if config.vae.guess_weight:
        error = ancestral_error(key_prior, batch.image, batch.condition, config, decoder)
        loss += config.vae.guess_weight * error
    if config.vae.mean_weight:
        error = mean_error(key_mean, batch.image, batch.condition, config, decoder)
        loss += config.vae.mean_weight * error
    return loss


def draw(
    keys: chex.PRNGKey, decoder: TrainState, config: Config, condition: chex.Array | None = None
) -> chex.Array:
    """The decoder's images `[B, H, W, C]` of z from the prior, one key each."""
    return decode(decoder, vae.sample_prior(keys, len(keys), config.latent_dim), condition)


def update_generator(
    keys: chex.PRNGKey,
    decoder: TrainState,
    critic: TrainState,
    loss_of: Callable[[chex.Array], chex.Array],
    condition: chex.Array | None,
    config: Config,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One step of a decoder on the mean of `loss_of` the energies of its samples.

    Args:
      keys: of z, one per sample.
      decoder: the generator.
      critic: whose energies they are; it is not changed.
      loss_of: energies `[B]` to losses `[B]`.
      condition: of the samples, or None.
      config: the experiment.
      axis_name: the mapped axis of devices, if there is one.
    """
    energy_fn = energy_of(local_copy(critic, axis_name), config, condition)

    def loss_fn(models):
        loss = jnp.mean(loss_of(energy_fn(draw(keys, models['decoder'], config, condition))))
        return loss, {'generator_loss': loss}

    models, metrics = learn({'decoder': decoder}, loss_fn, config, axis_name)
    return models['decoder'], metrics


def chain_metrics(
    ancestral: chex.Array,
    refined: chex.Array,
    info: dict[str, chex.Array],
    data: chex.Array,
    config: Config,
    axis_name: str | None = None,
) -> Metrics:
    """Metrics of the chain: its motion and gradients, and the spread of its samples.

    `langevin/motion` is the root mean square change of a pixel, `langevin/overshoot` the share of
    refined pixels beyond 1.1 times the data's range, [-1 - headroom, 1 + headroom]. `spread` is the
    standard deviation of refined samples divided by that of the data (of a pixel over images),
    `spread_ancestral` that of ancestral samples: near 0 all samples are the same.
    """
    means = {
        'langevin/energy_start': jnp.mean(info['energy'][:1]),
        'langevin/grad_norm_first': jnp.mean(info['grad_norm'][:1]),
        'langevin/grad_norm_last': jnp.mean(info['grad_norm'][-1:]),
        'motion': jnp.mean(jnp.square(refined - ancestral)),
        'langevin/overshoot': jnp.mean(
            jnp.abs(refined) > _OVERSHOT * (1.0 + config.data.headroom), dtype=refined.dtype
        ),
    }
    metrics = mean_over_devices(means, axis_name)
    metrics['langevin/motion'] = jnp.sqrt(metrics.pop('motion'))
    return metrics | spreads({'spread': refined, 'spread_ancestral': ancestral}, data, axis_name)


def spreads(
    samples: dict[str, chex.Array], data: chex.Array, axis_name: str | None = None
) -> Metrics:
    """The standard deviation of samples divided by that of the data, of a pixel over images."""
    moments = {
        name: (jnp.mean(x, axis=0), jnp.mean(jnp.square(x)))
        for name, x in (samples | {'data': data}).items()
    }
    variance = {
        name: jnp.maximum(second - jnp.mean(jnp.square(first)), 1e-12)
        for name, (first, second) in mean_over_devices(moments, axis_name).items()
    }
    return {name: jnp.sqrt(variance[name] / variance['data']) for name in samples}
