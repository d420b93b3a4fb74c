"""One training iteration of the poster, top to bottom.

A decoder guesses images, Langevin dynamics on the energy revises them, the energy learns from
data against the revised, and the VAE learns from the revised.
"""

import functools
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import optax

from vaebm_jax import keys as draws
from vaebm_jax import spectral, vae
from vaebm_jax.base import Batch, States, TrainState
from vaebm_jax.config import Config
from vaebm_jax.energy import mle_loss
from vaebm_jax.keys import branch, chain_keys
from vaebm_jax.sampling import ancestral_langevin_sample, decode, energy_of

Metrics = dict[str, chex.Array]
Loss = Callable[[TrainState, TrainState], chex.Array]


def train_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """Ancestral Langevin sampling, then both updates: a pure function of one device's share.

    Args:
      key: the run's own, the same at every step and on every device.
      states: energy, encoder and decoder; `states.step` is the run's clock.
      batch: this device's images `[B, H, W, C]` and, where the models have one, their condition.
      config: the experiment (static).
      axis_name: the mapped axis of devices to average over, if there is one.

    Returns:
      The states a step later, and metrics: scalars, means over all devices.
    """
    key = jax.random.fold_in(key, states.step)
    key_prior, key_langevin, key_posterior, key_dropout, key_truth = jax.random.split(key, 5)
    num_chains, first = local_chains(config, batch, axis_name)
    keys_truth = image_keys(key_truth, batch, axis_name)
    keys_prior = chain_keys(key_prior, num_chains, first)
    condition = chain_condition(batch.condition, num_chains)

    guess, refined, info = ancestral_langevin_sample(
        keys_prior,
        chain_keys(key_langevin, num_chains, first),
        own_copy(states, axis_name),
        config,
        num_chains,
        condition,
    )
    energy, energy_metrics = update_energy(
        states.energy,
        with_noise(image_keys(branch(key, 'data noise'), batch, axis_name), batch, config),
        refined,
        condition,
        config,
        axis_name,
    )
    encoder, decoder, vae_metrics = update_vae(
        chain_keys(key_posterior, num_chains, first),
        chain_keys(key_dropout, num_chains, first),
        states.encoder,
        states.decoder,
        refined,
        condition,
        config,
        axis_name,
        teaching=(
            functools.partial(truth_loss, keys_truth, batch, config),
            functools.partial(known_z_loss, keys_prior, refined, condition, config),
        ),
    )
    metrics = chain_metrics(guess, refined, info, batch.image, axis_name)
    metrics['langevin/energy_drop'] = (
        metrics.pop('langevin/energy_start') - energy_metrics['energy_samples']
    )
    states = states.advance(energy=energy, encoder=encoder, decoder=decoder)
    return states, energy_metrics | vae_metrics | metrics


def update_energy(
    state: TrainState,
    batch: Batch,
    samples: chex.Array,
    condition: chex.Array | None,
    config: Config,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One maximum-likelihood step: down on `batch`, up on `samples` (poster, eq. 2).

    Args:
      state: the energy.
      batch: observed images, with their condition.
      samples: revised images `[B', H, W, C]`; constants.
      condition: of the samples, or None.
      config: the experiment.
      axis_name: the mapped axis of devices, if there is one.
    """

    def loss_fn(params):
        model = state.replace(params=params)
        energy_data = energy_of(model, config, batch.condition)(batch.image)
        energy_samples = energy_of(model, config, condition)(samples)
        means = {'energy_data': jnp.mean(energy_data), 'energy_samples': jnp.mean(energy_samples)}
        loss = mle_loss(energy_data, energy_samples)
        if config.energy.l2:
            squares = jnp.mean(jnp.square(energy_data)) + jnp.mean(jnp.square(energy_samples))
            loss += config.energy.l2 / config.energy.scale * squares
        return loss, means

    grads, metrics = jax.grad(loss_fn, has_aux=True)(own_copy(state.params, axis_name))
    grads, metrics = mean_over_devices((grads, metrics), axis_name)
    metrics['grad_norm/energy'] = optax.tree.norm(grads)
    state = state.advance(grads, config.ema_decay)
    if config.energy.spectral_norm:
        state = state.replace(extra=spectral.iterate(state.params, state.extra))
    return state, metrics


def with_noise(keys: chex.PRNGKey, batch: Batch, config: Config) -> Batch:
    """The batch as the energy sees it: noise of `energy.data_noise` on its images, a key each."""
    if not config.energy.data_noise:
        return batch
    noise = draws.normal(keys, batch.image.shape[1:])
    return batch.replace(image=batch.image + config.energy.data_noise * noise)


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
    """One step of variational MCMC teaching: the VAE's bound on revised images (poster, eq. 3).

    Args:
      key_posterior: for z given x; one key, or one a sample.
      key_dropout: for the encoder's dropout rows, one a sample.
      encoder: the inference model.
      decoder: the generator.
      samples: revised images `[B', H, W, C]`, from which alone the poster's VAE learns.
      condition: of the samples, or None.
      config: the experiment.
      axis_name: the mapped axis of devices, if there is one.
      teaching: what is added to the bound: `known_z_loss`, `truth_loss` of the data.
    """

    def loss_fn(params):
        models = encoder.replace(params=params[0]), decoder.replace(params=params[1])
        bound, metrics = vae_loss(key_posterior, key_dropout, *models, samples, condition, config)
        loss = config.vae.bound_weight * bound
        return loss + sum(extra(*models) for extra in teaching), metrics

    params = own_copy((encoder.params, decoder.params), axis_name)
    grads, metrics = jax.grad(loss_fn, has_aux=True)(params)
    grads, metrics = mean_over_devices((grads, metrics), axis_name)
    encoder_grads, decoder_grads = grads
    metrics['grad_norm/encoder'] = optax.tree.norm(encoder_grads)
    metrics['grad_norm/decoder'] = optax.tree.norm(decoder_grads)
    encoder = encoder.advance(encoder_grads, config.ema_decay)
    decoder = decoder.advance(decoder_grads, config.ema_decay)
    return encoder, decoder, metrics


def vae_loss(
    key_posterior: chex.PRNGKey,
    key_dropout: chex.PRNGKey,
    encoder: TrainState,
    decoder: TrainState,
    images: chex.Array,
    condition: chex.Array | None,
    config: Config,
) -> tuple[chex.Array, Metrics]:
    """The mean of `vae.negative_elbo` over images, by a draw of z for each, and its two parts."""
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
    """`known_z_weight` times the mean of |x - g(z)|², z that from which the chain to x started.

    Args:
      keys: from which the chains' z were drawn, one a chain.
      refined: where they ended, `[B, H, W, C]`.
      condition: of the chains, or None.
      config: the experiment.
      encoder: not used: no inference stands between z and x here.
      decoder: the generator.
    """
    del encoder
    if not config.vae.known_z_weight:
        return 0.0
    z = vae.sample_prior(keys, refined.shape[0], config.latent_dim)
    errors = vae.distortion(refined, decode(decoder, z, condition))
    return config.vae.known_z_weight * jnp.mean(errors)


def truth_loss(
    keys: chex.PRNGKey, batch: Batch, config: Config, encoder: TrainState, decoder: TrainState
) -> chex.Array:
    """What draws the VAE to the data themselves, which the poster does not do.

    `truth_weight` times its bound on the data, and `guess_weight` times the squared distance from
    first guesses, `g(z, c)` with z from the prior, to the truth (J. Xie et al., Cooperative
    training of fast thinking initializer and slow thinking solver for conditional learning, 2021).

    Args:
      keys: one an image.
      batch: data and their condition.
      config: the experiment.
      encoder: the inference model.
      decoder: the generator.
    """
    key_posterior, key_dropout, key_prior = (draws.fold_in(keys, part) for part in range(3))
    models, loss = (encoder, decoder), 0.0
    if config.vae.truth_weight:
        bound, _ = vae_loss(
            key_posterior, key_dropout, *models, batch.image, batch.condition, config
        )
        loss += config.vae.truth_weight * bound
    if config.vae.guess_weight:
        z = vae.sample_prior(key_prior, batch.image.shape[0], config.latent_dim)
        errors = vae.distortion(batch.image, decode(decoder, z, batch.condition))
        loss += config.vae.guess_weight * jnp.mean(errors)
    return loss


def chain_metrics(
    guess: chex.Array,
    refined: chex.Array,
    info: dict[str, chex.Array],
    data: chex.Array,
    axis_name: str | None = None,
) -> Metrics:
    """How far and how steeply the chain moved, and how much its samples differ from one another.

    `langevin/motion` is the root mean square change of a pixel. `spread` is the standard deviation
    of the samples over that of the data (a pixel's, over images): near 0 all are one picture.
    """
    moments = {
        name: (jnp.mean(x, axis=0), jnp.mean(jnp.square(x), axis=0))
        for name, x in (('samples', refined), ('data', data))
    }
    means = {
        'langevin/energy_start': jnp.mean(info['energy'][:1]),
        'langevin/grad_norm_first': jnp.mean(info['grad_norm'][:1]),
        'langevin/grad_norm_last': jnp.mean(info['grad_norm'][-1:]),
        'motion': jnp.mean(jnp.square(refined - guess)),
    }
    moments, metrics = mean_over_devices((moments, means), axis_name)
    variance = {
        name: jnp.maximum(jnp.mean(second - jnp.square(first)), 1e-12)
        for name, (first, second) in moments.items()
    }
    metrics['langevin/motion'] = jnp.sqrt(metrics.pop('motion'))
    metrics['spread'] = jnp.sqrt(variance['samples'] / variance['data'])
    return metrics


def local_chains(
    config: Config, batch: Batch, axis_name: str | None = None
) -> tuple[int, chex.Numeric]:
    """This device's number of chains, and the index of its first among all devices' chains."""
    num_devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    num_chains, rest = divmod(config.num_chains, num_devices)
    if rest:
        raise ValueError(
            f'num_chains must divide over {num_devices} devices, got {config.num_chains}'
        )
    num_chains = num_chains or batch.image.shape[0]
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    return num_chains, device * num_chains


def image_keys(key: chex.PRNGKey, batch: Batch, axis_name: str | None = None) -> chex.PRNGKey:
    """A key for each of this device's images, by its index among all devices'."""
    num_images = batch.image.shape[0]
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    return chain_keys(key, num_images, device * num_images)


def chain_condition(condition: chex.Array | None, num_chains: int) -> chex.Array | None:
    """Each chain's condition `[num_chains, ...]`: chain i sees image `i // k`, k to an image."""
    if condition is None:
        return None
    repeats, rest = divmod(num_chains, condition.shape[0])
    if rest:
        raise ValueError(
            'with a condition, num_chains must be a multiple of batch_size: '
            f'got {num_chains} chains for {condition.shape[0]} images'
        )
    return jnp.repeat(condition, repeats, axis=0)


def mean_over_devices(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
    """The mean over the mapped axis; `tree` itself where there is none."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def own_copy(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
    """The same on every device, as each device's own: its gradient is then that device's alone.

    `jax.shard_map` sums the gradient of what devices share over them, unless check_vma=False; the
    mean of such sums would be too large by the number of devices. Its types say what is shared.
    """
    if axis_name is None or jax.typeof(jax.lax.axis_index(axis_name)) == jax.typeof(jnp.int32(0)):
        return tree
    return jax.lax.pcast(tree, axis_name, to='varying')
