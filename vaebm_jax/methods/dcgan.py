"""DCGAN: a generator against a critic that tells data from samples.

Radford, Metz and Chintala, Unsupervised representation learning with deep convolutional generative
adversarial networks, 2015; after Goodfellow et al., 2014. The critic is an energy U = -f without
reference, where f is the logit of "this is data"; the generator is the decoder.

Deviations from the published system:
- group norm in the generator and none in the critic, in place of batch norm: no image depends on
  others of its batch;
- z is normal, not uniform; the decoder's `up` rows take the place of transposed convolutions;
- no L2 of parameters;
- the critic's and the generator's update of an iteration are for the same batch of data, of which
  the generator uses only the conditions; the critic is first.
Networks and rates are the config's.
"""

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.devices import image_keys, local_copy
from vaebm_jax.methods.losses import bce
from vaebm_jax.methods.parts import Metrics, draw, learn, spreads, update_generator
from vaebm_jax.models.apply import energy_of
from vaebm_jax.models.states import States


def dcgan_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """The critic's update, then the generator's on new z; arguments as those of `train_step`."""
    key_critic, key_generator = jax.random.split(jax.random.fold_in(key, states.step))
    keys_critic = image_keys(key_critic, batch, axis_name)
    keys_generator = image_keys(key_generator, batch, axis_name)
    decoder = local_copy(states.decoder, axis_name)
    samples = draw(keys_critic, decoder, config, batch.condition)

    def loss_fn(models):
        energy_fn = energy_of(models['energy'], config, batch.condition)
        energy_data, energy_samples = energy_fn(batch.image), energy_fn(samples)
        loss = jnp.mean(bce(-energy_data, True)) + jnp.mean(bce(-energy_samples, False))
        means = {'energy_data': jnp.mean(energy_data), 'energy_samples': jnp.mean(energy_samples)}
        return loss, {'critic_loss': loss} | means

    critic, metrics = learn({'energy': states.energy}, loss_fn, config, axis_name)
    generator, generator_metrics = update_generator(
        keys_generator,
        states.decoder,
        critic['energy'],
        lambda energy: bce(-energy, True),
        batch.condition,
        config,
        axis_name,
    )
    metrics |= generator_metrics | spreads({'spread': samples}, batch.image, axis_name)
    return states.advance(**critic, decoder=generator), metrics
