"""One compiled call over all devices: jit on one, pmap on several. No other file names pmap.

States have no device axis. A call's images are `[K, B, H, W, C]` on one device and
`[D, K, B / D, H, W, C]` on D, for at most K iterations. With several processes each has the states,
and the images of its local devices.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from vaebm_jax.config import Config
from vaebm_jax.methods.parts import Metrics
from vaebm_jax.models.states import States
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training.iteration import Step, iterate

AXIS_NAME = 'devices'


def all_devices() -> list[jax.Device]:
    """The devices of all processes, grouped by process."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def local(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """The devices of this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def local_rows(batch_size: int, devices: Sequence[jax.Device]) -> slice:
    """This process's rows of a batch over `devices`, which are sorted as in `all_devices`."""
    is_local = [device.process_index == jax.process_index() for device in devices]
    size, first = batch_size // len(devices), is_local.index(True)
    return slice(first * size, (first + sum(is_local)) * size)


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
      config.steps_per_call` iterations of `images`, donates `states`, and returns the new states
      and the metrics of the last iteration. It is compiled once for all `num_steps`.
    """

    def run(key, states, images, num_steps, axis_name):
        once = functools.partial(iterate, key, step=step, config=config, axis_name=axis_name)
        if config.steps_per_call == 1:
            return once(states, images[0])
        # The number of iterations is dynamic: a shorter call runs the same program.
        shapes = jax.eval_shape(once, states, images[0])[1]
        metrics = jax.tree.map(lambda metric: jnp.zeros(metric.shape, metric.dtype), shapes)
        return jax.lax.fori_loop(
            0,
            num_steps,
            lambda index, carry: once(carry[0], images[index]),
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
    """Memory per device by the compiler's analysis: arguments, results and temporaries."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


@contextlib.contextmanager
def out_of_memory_explained(config: Config, call: Callable, args: Sequence) -> Iterator[None]:
    """Raises a UserError if `call(*args)` runs out of memory, with the sizes and bytes needed."""
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
    """The states on every device of this process, as `compile_step` returns them.

    Else a second call would compile again, since the first call's results are committed to the
    devices and new arrays are not; with several processes it would fail. All processes start with
    the numbers of process 0.
    """
    if len(local(devices)) < len(devices):
        states = multihost_utils.broadcast_one_to_all(states)
    return jax.device_put(states, devices[0] if len(devices) == 1 else _sharding(local(devices)))


def global_states(states: States, devices: Sequence[jax.Device]) -> States:
    """States of `place_states` as arrays over the devices of all processes, for Orbax."""
    if len(local(devices)) == len(devices):
        return states
    return jax.tree.map(
        lambda leaf: jax.make_array_from_single_device_arrays(
            leaf.shape, _sharding(devices), [shard.data for shard in leaf.addressable_shards]
        ),
        states,
    )


def place_rows(x: chex.Array, devices: Sequence[jax.Device]) -> chex.Array:
    """The rows of an array, sharded over the devices, so that jitted functions of rows are too."""
    return jax.device_put(x, devices[0] if len(devices) == 1 else _sharding(devices, AXIS_NAME))


def _sharding(devices, *axes):
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS_NAME,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def hold_images(
    images: np.ndarray, devices: Sequence[jax.Device]
) -> Callable[[np.ndarray], chex.Array]:
    """Puts a data set on every device once; `gather(indices [K, B]) -> images of a call`.

    Every device has all images, and gathers its share of a batch.
    """
    if len(devices) == 1:
        held = jax.device_put(images, devices[0])
        take = jax.jit(lambda images, indices: images[indices])
    else:
        here = local(devices)
        copies = np.broadcast_to(images, (len(here), *images.shape))
        held = jax.device_put(copies, _sharding(here, AXIS_NAME))
        take = jax.pmap(lambda images, indices: images[indices], devices=here)
    return lambda indices: take(
        held, split_rows(indices[:, local_rows(indices.shape[1], devices)], devices)
    )


def split_rows(rows: np.ndarray, devices: Sequence[jax.Device]) -> np.ndarray:
    """`local_rows` of batches, `[K, B, ...]`, for a call on D devices: `[D, K, B / D, ...]`."""
    if len(devices) == 1:
        return rows
    num_local = len(local(devices))
    num_steps, num_rows, *shape = rows.shape
    return rows.reshape(num_steps, num_local, num_rows // num_local, *shape).swapaxes(0, 1)
