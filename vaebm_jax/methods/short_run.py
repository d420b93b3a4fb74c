"""An energy whose chains start from noise at every iteration and are too short to forget it.

E. Nijkamp, M. Hill, S.-C. Zhu, Y. N. Wu, Learning non-convergent non-persistent short-run MCMC
toward energy-based model, 2019. The chain is a sampler of its own, as long in sampling as in
training. The authors' chain has 100 steps and little noise, and their energy learns from data with
noise (`energy.data_noise`); here chain and energy are the config's, with or without the poster's
reference term.
"""

import chex
import jax

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.chains import run_chain
from vaebm_jax.methods.devices import local_chains, local_copy
from vaebm_jax.methods.parts import Metrics, learn_from_chains
from vaebm_jax.models.states import States, TrainState
from vaebm_jax.samplers.keys import chain_keys, uniform


def short_run_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """Chains from noise; the energy learns from the data against their ends.

    Arguments and results are those of `vaebm.train_step`; the states have an energy.
    """
    key = jax.random.fold_in(key, states.step)
    num_chains, first = local_chains(config, batch, axis_name)
    keys_start, keys_langevin = (
        chain_keys(part, num_chains, first) for part in jax.random.split(key)
    )
    starts = noise(keys_start, config)
    energy, _, metrics = learn_from_starts(
        key, keys_langevin, states.energy, batch, starts, first, config, axis_name
    )
    return states.advance(energy=energy), metrics


def learn_from_starts(
    key: chex.PRNGKey,
    keys_langevin: chex.PRNGKey,
    energy: TrainState,
    batch: Batch,
    starts: chex.Array,
    first: chex.Numeric,
    config: Config,
    axis_name: str | None = None,
) -> tuple[TrainState, chex.Array, Metrics]:
    """`learn_from_chains` with chains from `starts`, which no decoder drew.

    Returns:
      The energy, the ends of the chains, `[B, H, W, C]`, and metrics.
    """
    local = local_copy(energy, axis_name)
    refined, info = run_chain(keys_langevin, local, config, starts, config.langevin.num_steps)
    chains = starts, refined, info
    energy, metrics = learn_from_chains(key, energy, batch, chains, first, config, axis_name)
    del metrics['spread_ancestral']
    return energy, refined, metrics


def noise(keys: chex.PRNGKey, config: Config) -> chex.Array:
    """Uniform in the range of the data, `[B, H, W, C]`, an image from each key."""
    size, end = config.data.image_size, 1.0 + config.data.headroom
    return end * (2.0 * uniform(keys, shape=(size, size, config.data.num_channels)) - 1.0)


def sample(
    keys: tuple[chex.PRNGKey, chex.PRNGKey],
    states: States,
    config: Config,
    num_samples: int,
    condition: chex.Array | None = None,
) -> dict[str, chex.Array]:
    """Noise, and the same refined as in training: `sample` in METHODS, without conditions."""
    del condition
    starts = noise(chain_keys(keys[0], num_samples), config)
    refined, _ = run_chain(keys[1], states.energy, config, starts, config.langevin.num_steps)
    return {'noise': starts, 'refined': refined}
