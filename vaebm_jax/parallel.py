"""One compiled call over all devices: jit on one, pmap on several. No other file names pmap.

States have no device axis. A call's images are `[K, B, H, W, C]` on one device and
`[D, K, B / D, H, W, C]` on D, K iterations at the most.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax.base import States
from vaebm_jax.condition import make_condition
from vaebm_jax.config import Config
from vaebm_jax.data import make_batch
from vaebm_jax.errors import UserError
from vaebm_jax.train_step import Metrics

AXIS_NAME = 'devices'

Step = Callable[..., tuple[States, Metrics]]


def check_divides(config: Config, num_devices: int) -> None:
    """Raises a UserError if the batch or the chains do not divide over the devices."""
    wrong = [
        f'{name} must divide over {num_devices} devices, got {size}'
        for name, size in (('batch_size', config.batch_size), ('num_chains', config.num_chains))
        if size % num_devices
    ]
    if wrong:
        raise UserError('; '.join(wrong))


def compile_step(
    step: Step, config: Config, devices: Sequence[jax.Device]
) -> Callable[[chex.PRNGKey, States, chex.Array, int], tuple[States, Metrics]]:
    """Several training iterations as one call on the given devices.

    Returns:
      `call(key, states, images, num_steps)`, which runs the first `num_steps` of the `K =
      config.steps_per_call` iterations that `images` holds, donates `states`, and returns the new
      states and the metrics of the last iteration. One compilation serves every `num_steps`.
    """

    def run(key, states, images, num_steps, axis_name):
        key_data, key_step, key_condition = jax.random.split(key, 3)
        device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
        first = device * images.shape[1]

        def iterate(states, images):
            key = jax.random.fold_in(key_data, states.energy.step)
            batch = make_batch(key, images, config.data, first)
            key = jax.random.fold_in(key_condition, states.energy.step)
            condition = make_condition(key, batch.image, config.condition, first)
            batch = batch.replace(condition=condition)
            return step(key_step, states, batch, config, axis_name)

        if config.steps_per_call == 1:
            return iterate(states, images[0])
        # The number of turns is dynamic: a call cut short runs the very same program.
        shapes = jax.eval_shape(iterate, states, images[0])[1]
        metrics = jax.tree.map(lambda metric: jnp.zeros(metric.shape, metric.dtype), shapes)
        return jax.lax.fori_loop(
            0,
            num_steps,
            lambda turn, carry: iterate(carry[0], images[turn]),
            (states, metrics),
        )

    if len(devices) == 1:
        return jax.jit(functools.partial(run, axis_name=None), donate_argnums=1)
    return jax.pmap(
        functools.partial(run, axis_name=AXIS_NAME),
        AXIS_NAME,
        in_axes=(None, None, 0, None),
        out_axes=(None, None),
        devices=devices,
        donate_argnums=1,
    )


def bytes_needed(compiled: jax.stages.Compiled) -> int:
    """Of a device's memory, by the compiler's own analysis: arguments, results, and between."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


@contextlib.contextmanager
def out_of_memory_explained(config: Config, call: Callable, args: Sequence) -> Iterator[None]:
    """Makes a UserError of running out of memory in `call(*args)`: what takes it, and how much."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        needed = bytes_needed(call.lower(*args).compile())
        chains = config.num_chains or config.batch_size
        raise UserError(
            f'out of memory: a step of batch_size {config.batch_size} and num_chains {chains} over '
            f'{jax.device_count()} device(s) needs {needed / 1e9:,.2f} GB on each. Fewer of both, '
            'or more devices, take less; so does dtype=bfloat16'
        ) from error


def place_states(states: States, devices: Sequence[jax.Device]) -> States:
    """The states on every device, as `compile_step` returns them.

    Without this a second compilation would follow the first call, whose results live on the
    devices for good where fresh arrays do not.
    """
    return jax.device_put(states, devices[0] if len(devices) == 1 else _sharding(devices))


def place_rows(x: chex.Array, devices: Sequence[jax.Device]) -> chex.Array:
    """The rows of an array divided over the devices: a jitted function of each row follows them."""
    return jax.device_put(x, devices[0] if len(devices) == 1 else _sharding(devices, AXIS_NAME))


def _sharding(devices, *axes):
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS_NAME,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def hold_images(
    images: np.ndarray, devices: Sequence[jax.Device]
) -> Callable[[np.ndarray], chex.Array]:
    """Puts a data set on every device once; `gather(indices [K, B]) -> images of a call`."""
    if len(devices) == 1:
        held = jax.device_put(images, devices[0])
        take = jax.jit(lambda images, indices: images[indices])
    else:
        copies = np.broadcast_to(images, (len(devices), *images.shape))
        held = jax.device_put(copies, _sharding(devices, AXIS_NAME))
        take = jax.pmap(lambda images, indices: images[indices], devices=devices)
    return lambda indices: take(held, split_batch(indices, len(devices)))


def split_batch(batches: np.ndarray, num_devices: int) -> np.ndarray:
    """`[K, B, ...]` as it is for one device, as `[D, K, B / D, ...]` for D."""
    if num_devices == 1:
        return batches
    num_steps, batch_size, *shape = batches.shape
    batches = batches.reshape(num_steps, num_devices, batch_size // num_devices, *shape)
    return batches.swapaxes(0, 1)
