"""One compiled call over all devices: jit on one, pmap on several. No other file names pmap.

States have no device axis. A call's images are `[K, B, H, W, C]` on one device and
`[D, K, B / D, H, W, C]` on D, K iterations at the most. With several processes each has the states,
and of the images the part of its own devices.
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
    """The devices of all processes, those of one beside each other."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def own(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Those of this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def own_rows(batch_size: int, devices: Sequence[jax.Device]) -> slice:
    """Which rows of a batch over `devices`, sorted as `all_devices` has them, are for `own`."""
    is_own = [device.process_index == jax.process_index() for device in devices]
    size, first = batch_size // len(devices), is_own.index(True)
    return slice(first * size, (first + sum(is_own)) * size)


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
        once = functools.partial(iterate, key, step=step, config=config, axis_name=axis_name)
        if config.steps_per_call == 1:
            return once(states, images[0])
        # The number of turns is dynamic: a call cut short runs the very same program.
        shapes = jax.eval_shape(once, states, images[0])[1]
        metrics = jax.tree.map(lambda metric: jnp.zeros(metric.shape, metric.dtype), shapes)
        return jax.lax.fori_loop(
            0,
            num_steps,
            lambda turn, carry: once(carry[0], images[turn]),
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
    """The states on every device of this process, as `compile_step` returns them.

    Without this a second compilation would follow the first call, whose results live on the
    devices for good where fresh arrays do not; of several processes the second call would fail.
    All of them begin with the numbers of the first.
    """
    if len(own(devices)) < len(devices):
        states = multihost_utils.broadcast_one_to_all(states)
    return jax.device_put(states, devices[0] if len(devices) == 1 else _sharding(own(devices)))


def whole_states(states: States, devices: Sequence[jax.Device]) -> States:
    """States of `place_states` as arrays over the devices of all processes: what Orbax writes."""
    if len(own(devices)) == len(devices):
        return states
    return jax.tree.map(
        lambda leaf: jax.make_array_from_single_device_arrays(
            leaf.shape, _sharding(devices), [shard.data for shard in leaf.addressable_shards]
        ),
        states,
    )


def place_rows(x: chex.Array, devices: Sequence[jax.Device]) -> chex.Array:
    """The rows of an array divided over the devices: a jitted function of each row follows them."""
    return jax.device_put(x, devices[0] if len(devices) == 1 else _sharding(devices, AXIS_NAME))


def _sharding(devices, *axes):
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS_NAME,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def hold_images(
    images: np.ndarray, devices: Sequence[jax.Device]
) -> Callable[[np.ndarray], chex.Array]:
    """Puts a data set on every device once; `gather(indices [K, B]) -> images of a call`.

    Any device may be to see any image, so each has them all; it gathers its own share of a batch.
    """
    if len(devices) == 1:
        held = jax.device_put(images, devices[0])
        take = jax.jit(lambda images, indices: images[indices])
    else:
        local = own(devices)
        copies = np.broadcast_to(images, (len(local), *images.shape))
        held = jax.device_put(copies, _sharding(local, AXIS_NAME))
        take = jax.pmap(lambda images, indices: images[indices], devices=local)
    return lambda indices: take(
        held, split_rows(indices[:, own_rows(indices.shape[1], devices)], devices)
    )


def split_rows(rows: np.ndarray, devices: Sequence[jax.Device]) -> np.ndarray:
    """`own_rows` of batches, `[K, B, ...]`, as a call takes them: `[D, K, B / D, ...]` for D."""
    if len(devices) == 1:
        return rows
    num_local = len(own(devices))
    num_steps, num_rows, *shape = rows.shape
    return rows.reshape(num_steps, num_local, num_rows // num_local, *shape).swapaxes(0, 1)
