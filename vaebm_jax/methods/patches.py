"""Learning from critics that judge patches: losses of their maps, and of what is recovered."""

from collections.abc import Callable

import chex
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.data.conditions import observed_of
from vaebm_jax.methods.losses import absolute_error
from vaebm_jax.methods.parts import Metrics
from vaebm_jax.models.apply import maps_of
from vaebm_jax.models.networks import patch_mean
from vaebm_jax.models.states import TrainState

MapLoss = Callable[[chex.Array, bool], chex.Array]  # Of outputs, and whether they are of data.


def patch_loss(maps: tuple[chex.Array, ...], is_data: bool, loss: MapLoss) -> chex.Array:
    """The mean of a loss over the places of each map `[B, h, w]`, summed over maps: `[B]`."""
    return sum(jnp.mean(loss(each, is_data), axis=(1, 2)) for each in maps)


def critic_loss(
    critic: TrainState,
    data: Batch,
    samples: Batch,
    loss: MapLoss,
    config: Config,
    weights: tuple[chex.Array | None, chex.Array | None] = (None, None),
) -> tuple[chex.Array, Metrics]:
    """The mean of a critic's loss over data plus that over samples, and the mean energies of both.

    Args:
      critic: with a `PatchCritic`.
      data: images and their condition.
      samples: of a generator, constants, and theirs.
      loss: of one output.
      config: the experiment.
      weights: of the images of each in the means, as those of `rows_of_part`; None: equal ones.
    """
    total, metrics = 0.0, {}
    parts = zip(('energy_data', 'energy_samples'), (data, samples), weights, strict=True)
    for name, part, weight in parts:
        maps = maps_of(critic, config, part.condition)(part.image)
        total += average(patch_loss(maps, name == 'energy_data', loss), weight)
        metrics[name] = -average(patch_mean(maps), weight)
    return total, metrics


def average(values: chex.Array, weights: chex.Array | None = None) -> chex.Array:
    """The mean of values `[B]`, or their weighted sum."""
    return jnp.mean(values) if weights is None else jnp.sum(weights.astype(values.dtype) * values)


def recovery_error(images: chex.Array, batch: Batch) -> chex.Array:
    """The mean of `|x - truth|` over missing pixels and images."""
    return jnp.mean(absolute_error(images, batch.image, ~observed_of(batch.condition)))
