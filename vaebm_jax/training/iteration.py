"""What a training iteration does with a device's share of the images: augment, condition, step."""

from collections.abc import Callable

import chex
import jax

from vaebm_jax.config import Config
from vaebm_jax.data.batch import make_batch
from vaebm_jax.data.conditions import make_condition
from vaebm_jax.methods.parts import Metrics
from vaebm_jax.models.states import States

Step = Callable[..., tuple[States, Metrics]]


def iterate(
    key: chex.PRNGKey,
    states: States,
    images: chex.Array,
    step: Step,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """One iteration: a method's step on images as they are stored.

    Args:
      key: one per run, the same at every iteration and on every device.
      states: of the run, the same on every device.
      images: this device's, as returned by `loading.load_images`.
      step: of the method, like `vaebm.train_step`.
      config: the experiment (static).
      axis_name: the mapped axis of devices, if there is one.
    """
    key_data, key_step, key_condition = jax.random.split(key, 3)
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    first = device * images.shape[0]
    batch = make_batch(jax.random.fold_in(key_data, states.step), images, config.data, first)
    key_condition = jax.random.fold_in(key_condition, states.step)
    condition = make_condition(key_condition, batch.image, config.condition, first)
    return step(key_step, states, batch.replace(condition=condition), config, axis_name)
