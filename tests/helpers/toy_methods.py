"""Methods for tests, a row each: of one network, with a replay memory, of five networks."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from vaebm_jax.data.batch import Batch
from vaebm_jax.methods import Method, vaebm
from vaebm_jax.methods.chains import run_chain
from vaebm_jax.methods.devices import image_keys, local_chains, local_copy
from vaebm_jax.methods.parts import learn, update_energy
from vaebm_jax.models.apply import decode
from vaebm_jax.models.create import DECODER, ENCODER, ENERGY, Role
from vaebm_jax.models.vae import sample_prior
from vaebm_jax.samplers import keys

MEMORY_SIZE = 40


class Gaussian(nn.Module):
    """`|x - mean|² / 2`, `[B]`, of a mean image that is learned."""

    @nn.compact
    def __call__(self, x, condition=None):
        mean = self.param('mean', nn.initializers.zeros, x.shape[1:], jnp.float32)
        return 0.5 * jnp.sum(jnp.square(x - mean[jnp.newaxis]), axis=(1, 2, 3))


GAUSSIAN = Role(lambda config, **common: Gaussian(), 'vae')


def learn_mean(states, batch, config, axis_name):
    def loss_fn(models):
        model = models['gaussian']
        distance = jnp.mean(model.apply_fn({'params': model.params}, batch.image))
        return distance, {'distance': distance}

    return learn({'gaussian': states.models['gaussian']}, loss_fn, config, axis_name)


def gaussian_step(key, states, batch, config, axis_name=None):
    models, metrics = learn_mean(states, batch, config, axis_name)
    return states.advance(**models), metrics


def gaussian_sample(keys_of, states, config, num_samples, condition=None):
    mean = states.models['gaussian'].params['mean']
    return {'drawn': mean[jnp.newaxis] + keys.normal(keys_of[0], mean.shape)}


def empty_memory(key, config):
    size, channels = config.data.image_size, config.data.num_channels
    return jax.random.randint(key, (MEMORY_SIZE, size, size, channels), 0, 256, jnp.uint8)


def replay_step(key, states, batch, config, axis_name=None):
    """Chains start in a memory of images of 8 bits, and their ends take the oldest places."""
    key_start, key_chain = jax.random.split(jax.random.fold_in(key, states.step))
    num_chains, first = local_chains(config, batch, axis_name)
    start = keys.uniform(keys.chain_keys(key_start, num_chains, first))
    rows = jnp.int32(start * MEMORY_SIZE)
    x = states.memory[rows].astype(jnp.float32) / 127.5 - 1.0
    energy = local_copy(states.energy, axis_name)
    keys_chain = keys.chain_keys(key_chain, num_chains, first)
    refined, _ = run_chain(keys_chain, energy, config, x, config.langevin.num_steps)
    energy, metrics = update_energy(states.energy, batch, Batch(refined), config, axis_name)

    num_devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    places = states.step * num_chains * num_devices + first + jnp.arange(num_chains)
    places %= MEMORY_SIZE
    written = jnp.round((jnp.clip(refined, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.int32)
    # A place holds 0, or what one device has for it and 1: the sum over devices is theirs.
    update = jnp.zeros(states.memory.shape, jnp.int32).at[places].set(written + 1)
    update = update if axis_name is None else jax.lax.psum(update, axis_name)
    memory = jnp.where(update > 0, (update - 1).astype(jnp.uint8), states.memory)
    return states.advance(energy=energy, memory=memory), metrics


def replay_sample(keys_of, states, config, num_samples, condition=None):
    size, channels = config.data.image_size, config.data.num_channels
    noise = keys.normal(keys_of[0], (size, size, channels))
    refined, _ = run_chain(keys_of[1], states.energy, config, noise, config.langevin.num_steps)
    return {'noise': noise, 'refined': refined}


def five_step(key, states, batch, config, axis_name=None):
    """The poster's step; then a second energy and a mean learn, too."""
    key_z = keys.branch(jax.random.fold_in(key, states.step), 'second energy')
    states, metrics = vaebm.train_step(key, states, batch, config, axis_name)
    z = sample_prior(image_keys(key_z, batch, axis_name), len(batch.image), config.latent_dim)
    samples = decode(local_copy(states.decoder, axis_name), z)
    other, about = update_energy(
        states.models['other_energy'], batch, Batch(samples), config, axis_name
    )
    models, about_mean = learn_mean(states, batch, config, axis_name)
    metrics |= {f'other/{name}': value for name, value in (about | about_mean).items()}
    return states.replace(other_energy=other, **models), metrics


THREE = {'energy': ENERGY, 'encoder': ENCODER, 'decoder': DECODER}
ROWS = {
    'gaussian': Method(
        roles={'gaussian': GAUSSIAN},
        step=gaussian_step,
        sample=gaussian_sample,
        stages={'drawn': 'draws of the Gaussian'},
        progress=('distance {distance:.4g}',),
        unused=('langevin.*', 'warmup_steps'),
    ),
    'replay': Method(
        roles={'energy': ENERGY},
        step=replay_step,
        sample=replay_sample,
        stages={'noise': 'noise', 'refined': 'after {config.langevin.num_steps} steps'},
        init_memory=empty_memory,
        progress=('energy of data {energy_data:.4g}',),
    ),
    'five': Method(
        roles=THREE | {'other_energy': ENERGY, 'gaussian': GAUSSIAN},
        step=five_step,
        sample=vaebm.sample,
        stages={'ancestral': 'decoded', 'refined': 'refined'},
    ),
}
