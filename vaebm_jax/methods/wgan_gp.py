"""WGAN-GP: a generator against a critic whose slope is drawn towards 1.

Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville, Improved training of Wasserstein GANs, 2017. The
critic is an energy U = -f without reference, which learns by `mle_loss` and the gradient penalty;
the generator is the decoder, and lowers the energy of its samples.

The batch of an iteration is divided among the critic's updates (`energy.updates`): update k takes
the images whose index mod their number is k, so no update sees an image of another. The published
batch of 64 for each of 5 updates is a `batch_size` of 320.

Deviations from the published system:
- group norm in the generator, in place of batch norm: no image depends on others of its batch;
- the decoder's `up` rows take the place of transposed convolutions;
- the generator's batch has `batch_size` images, not those of one critic's update;
- the critic comes first in an iteration, also in the first one;
- the slope is `sqrt(sum² + 1e-12)`, which has a derivative where the critic is constant.
Networks and rates are the config's; published were an `adam_b2` of 0.9 and rates of 1e-4.
"""

from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.devices import image_keys, local_copy, rows_of_part
from vaebm_jax.methods.losses import gradient_penalty
from vaebm_jax.methods.parts import Metrics, draw, learn, spreads, update_generator
from vaebm_jax.models.apply import energy_of
from vaebm_jax.models.states import States, TrainState
from vaebm_jax.samplers.keys import fold_in, uniform

_PENALTY = 10.0


def num_updates(config: Config) -> int:
    """The number of the critic's updates in an iteration."""
    return config.energy.updates or 5


def needs(config: Config) -> Iterator[tuple[str, str]]:
    """`needs` in METHODS."""
    if config.batch_size < num_updates(config):
        each = f"at least {num_updates(config)}: an image for each of the critic's updates"
        yield 'batch_size', f'{each} (energy.updates)'


def wgan_gp_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """The critic's updates, then the generator's on new z; arguments as those of `train_step`."""
    key_critic, key_generator = jax.random.split(jax.random.fold_in(key, states.step))
    keys_critic = image_keys(key_critic, batch, axis_name)
    keys_generator = image_keys(key_generator, batch, axis_name)
    decoder = local_copy(states.decoder, axis_name)
    samples = draw(fold_in(keys_critic, 0), decoder, config, batch.condition)
    mixing = uniform(fold_in(keys_critic, 1), samples.dtype)[:, None, None, None]
    mixed = batch.image + mixing * (samples - batch.image)

    def update(critic, part):
        rows, weights = rows_of_part(part, num_updates(config), batch, axis_name)
        images = (x[rows] for x in (batch.image, samples, mixed))
        condition = None if batch.condition is None else batch.condition[rows]
        return update_critic(critic, *images, weights, condition, config, axis_name)

    critic, metrics = jax.lax.scan(update, states.energy, jnp.arange(num_updates(config)))
    generator, generator_metrics = update_generator(
        keys_generator,
        states.decoder,
        critic,
        lambda energy: energy,
        batch.condition,
        config,
        axis_name,
    )
    metrics = jax.tree.map(jnp.mean, metrics) | generator_metrics
    metrics |= spreads({'spread': samples}, batch.image, axis_name)
    return states.advance(energy=critic, decoder=generator), metrics


def update_critic(
    critic: TrainState,
    data: chex.Array,
    samples: chex.Array,
    mixed: chex.Array,
    weights: chex.Array,
    condition: chex.Array | None,
    config: Config,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One step on `E_data[U] - E_samples[U] + 10 E_mixed[(|∇U| - 1)²]`.

    Args:
      critic: the model.
      data: images `[B, H, W, C]`.
      samples: of the generator, of the same shape, constants.
      mixed: a point between each image of the data and its sample.
      weights: of the images in the means, `[B]`.
      condition: of all three, or None.
      config: the experiment.
      axis_name: the mapped axis of devices, if there is one.
    """

    def loss_fn(models):
        energy_fn = energy_of(models['energy'], config, condition)
        values = {
            'energy_data': energy_fn(data),
            'energy_samples': energy_fn(samples),
            'gradient_penalty': gradient_penalty(energy_fn, mixed),
        }
        means = {
            name: jnp.sum(weights.astype(value.dtype) * value) for name, value in values.items()
        }
        loss = means['energy_data'] - means['energy_samples']
        return loss + _PENALTY * means['gradient_penalty'], means

    models, metrics = learn({'energy': critic}, loss_fn, config, axis_name)
    return models['energy'], metrics
