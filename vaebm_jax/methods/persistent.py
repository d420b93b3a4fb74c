"""An energy whose chains continue from a replay memory, with some restarts from noise.

Y. Du, I. Mordatch, Implicit generation and modeling with energy-based models, 2019 (IGEBM). The
memory is `States.memory`, so it is saved and resumed with the models, and is the same on any number
of devices. Any energy of the config trains; the published one is without a reference term, and its
sampler and loss in the units of this package (pixels in [-1, 1], energies in nats) are

    energy.reference_std=0  energy.scale=8e5  energy.spectral_norm=1  energy.l2=1
    energy.learning_rate=3e-4  energy.adam_b1=0  energy.max_grad_element=0.1
    langevin.num_steps=60  langevin.step_size=0.01  langevin.max_element_drift=0.2
    data.dequantize=True

with residual rows `network.energy`. They are for long training: on the 8x8 digits with dense layers
the chains are still noisy after 1,500 steps, while a scale of 8e4, 40 steps of the chain, a memory
of 2,000 and the config's learning rate draw legible digits after 2,500. Where this differs from the
authors' code:

* A step adds noise to where the gradient's step leads; theirs takes the gradient at the noisy
  point, which for a quadratic energy has a smaller variance.
* Pixels are clipped when they are stored, not after each step.
* Every kernel is normalized, the last one too; theirs leaves that out. No dropout.
* Learning rates and averaged parameters are the config's; theirs are constant and none.
* Samples after training are rows of the training's memory and `langevin.num_steps` more steps,
  without restarts. Theirs are from 50 new memories of 1,000 images, 200 rounds of the chain each
  and with restarts but in the last ten; that costs 100 times as much and more.
"""

from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.data.sources import density_of
from vaebm_jax.methods import short_run
from vaebm_jax.methods.chains import run_chain
from vaebm_jax.methods.devices import all_rows, local_chains
from vaebm_jax.methods.needs import no_condition
from vaebm_jax.methods.parts import Metrics
from vaebm_jax.models.states import States
from vaebm_jax.samplers.keys import chain_keys, fold_in, uniform

RESTARTS = 0.05  # The share of chains that start from noise.

Memory = dict[str, chex.Array]


def persistent_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """Chains from the memory or noise; the energy learns; the chains' ends enter the memory.

    Arguments and results are those of `vaebm.train_step`; the states have an energy and a memory.
    """
    key = jax.random.fold_in(key, states.step)
    num_chains, first = local_chains(config, batch, axis_name)
    keys_start, keys_langevin = (
        chain_keys(part, num_chains, first) for part in jax.random.split(key)
    )
    starts = draw_starts(keys_start, states.memory, config, RESTARTS)
    energy, refined, metrics = short_run.learn_from_starts(
        key, keys_langevin, states.energy, batch, starts, first, config, axis_name
    )
    rows = all_rows(to_bytes(refined, config), first, axis_name)
    return states.advance(energy=energy, memory=store(states.memory, rows)), metrics


def init_memory(key: chex.PRNGKey, config: Config) -> Memory:
    """An empty memory.

    `images` `[N, H, W, C]` uint8 in a ring, `size` how many of them are held and `next` the row
    that is written next. With no image held all chains start from noise.
    """
    del key
    size, channels = config.data.image_size, config.data.num_channels
    shape = config.langevin.memory_size, size, size, channels
    zero = jnp.zeros((), jnp.int32)
    return {'images': jnp.zeros(shape, jnp.uint8), 'size': zero, 'next': jnp.copy(zero)}


def draw_starts(
    keys: chex.PRNGKey, memory: Memory, config: Config, restarts: float = 0.0
) -> chex.Array:
    """Starting points of chains, `[B, H, W, C]`: images of the memory, or uniform noise.

    Args:
      keys: one per chain.
      memory: from which each chain draws an image, with replacement.
      config: the experiment.
      restarts: the share of chains that start from noise; all do if the memory is empty.
    """
    pick = lambda key: jax.random.randint(key, (), 0, memory['size'], jnp.int32)
    rows = jax.vmap(pick)(fold_in(keys, 0))
    is_noise = (uniform(fold_in(keys, 1)) < restarts) | (memory['size'] == 0)
    noise = short_run.noise(fold_in(keys, 2), config)
    held = from_bytes(memory['images'][rows], noise, config)
    return jnp.where(is_noise[:, jnp.newaxis, jnp.newaxis, jnp.newaxis], noise, held)


def store(memory: Memory, rows: chex.Array) -> Memory:
    """The memory with new rows `[B, H, W, C]`, uint8, in the place of its oldest."""
    capacity = len(memory['images'])
    places = (memory['next'] + jnp.arange(len(rows), dtype=jnp.int32)) % capacity
    return {
        'images': memory['images'].at[places].set(rows),
        'size': jnp.minimum(memory['size'] + len(rows), capacity),
        'next': (memory['next'] + len(rows)) % capacity,
    }


def to_bytes(x: chex.Array, config: Config) -> chex.Array:
    """Pixels clipped to the range of the data, as whole numbers from 0 to 255, rounded down."""
    share = 0.5 * (x / (1.0 + config.data.headroom) + 1.0)
    return jnp.floor(255.0 * jnp.clip(share, 0.0, 1.0)).astype(jnp.uint8)


def from_bytes(stored: chex.Array, noise: chex.Array, config: Config) -> chex.Array:
    """The pixels of `to_bytes`, spread by noise: byte b is (b + u) / 256 of the range, u in [0, 1).

    `noise` is as from `short_run.noise`, uniform in that range.
    """
    end = 1.0 + config.data.headroom
    return ((2.0 * stored.astype(noise.dtype) + 1.0) * end + noise) / 256.0 - end


def sample(
    keys: tuple[chex.PRNGKey, chex.PRNGKey],
    states: States,
    config: Config,
    num_samples: int,
    condition: chex.Array | None = None,
) -> dict[str, chex.Array]:
    """Images of the memory, and the same refined: `sample` in METHODS, without conditions."""
    del condition
    starts = draw_starts(chain_keys(keys[0], num_samples), states.memory, config)
    refined, _ = run_chain(keys[1], states.energy, config, starts, config.langevin.num_steps)
    return {'memory': starts, 'refined': refined}


def needs(config: Config) -> Iterator[tuple[str, str]]:
    """Settings that do not fit: `needs` in METHODS."""
    yield from no_condition(config)
    if density_of(config.data):
        yield 'data.name', 'of images with method persistent, whose memory has 8 bits a pixel'
    num_chains = config.num_chains or config.batch_size
    if config.langevin.memory_size < num_chains:
        yield 'langevin.memory_size', f'at least the {num_chains} chains of an iteration'
