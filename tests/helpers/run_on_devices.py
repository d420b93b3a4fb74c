r"""Run by devices.py in a process of 8 simulated devices: trains on some of them, to npz.

    python -m helpers.run_on_devices \
        FOLDER NUM_STEPS float32|float64 NAME NUM_DEVICESxSTEPS_PER_CALL ...

NAME is one of CONFIGS, or a method. With `-shard_map` at its end, a run (of one step a call) is
compiled without pmap.
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from helpers.configs import rival
from helpers.toy_methods import ROWS
from vaebm_jax.config import (
    ConditionConfig,
    Config,
    DataConfig,
    EnergyConfig,
    LangevinConfig,
    NetworkConfig,
    VAEConfig,
)
from vaebm_jax.data.loading import load_images
from vaebm_jax.data.order import batch_indices
from vaebm_jax.methods import METHODS, create_states
from vaebm_jax.training.iteration import iterate
from vaebm_jax.training.parallel import AXIS_NAME, compile_step, hold_images, place_states

CONFIG = Config(
    num_steps=20,
    batch_size=16,
    num_chains=24,
    latent_dim=4,
    data=DataConfig(flip=True, dequantize=True),
    langevin=LangevinConfig(num_steps=5),
    network=NetworkConfig(
        energy=(('conv', 8, 3, 2), ('dense', 16)),
        encoder=(('conv', 8, 3, 2), ('dropout', 0.2)),
        decoder=(('map', 8), ('up', 8, 3)),
    ),
)
METHODS.update(ROWS)
DENSE = dataclasses.replace(
    CONFIG,
    network=NetworkConfig(
        energy=(('dense', 16),),
        encoder=(('dense', 16), ('dropout', 0.2)),
        decoder=(('dense', 16),),
    ),
)
CONFIGS = {
    'whole': CONFIG,
    'dense': DENSE,
    'replay': dataclasses.replace(DENSE, method='replay'),
    'five': dataclasses.replace(DENSE, method='five'),
    'coopnets': dataclasses.replace(
        DENSE, method='coopnets', langevin=LangevinConfig(num_steps=5, latent_steps=2)
    ),
    'persistent': dataclasses.replace(
        DENSE, method='persistent', langevin=LangevinConfig(num_steps=5, memory_size=40)
    ),
    **{
        method: dataclasses.replace(
            CONFIG,
            method=method,
            convolution='plain',
            data=DataConfig(flip=True),
            network=NetworkConfig(likelihood=(*(('gated', 6, 3),) * 2, ('dense', 8))),
        )
        for method in ('pixelcnn', 'pixeliqn')
    },
    'known z': dataclasses.replace(
        CONFIG,
        energy=EnergyConfig(
            reference_std=0.0, scale=1e4, spectral_norm=1.0, l2=1e-3, data_noise=0.02
        ),
        vae=VAEConfig(bound_weight=0.0, known_z_weight=1.0, truth_weight=0.1),
        network=dataclasses.replace(
            CONFIG.network,
            energy=(('conv', 8, 3, 1), ('res', 12, 2), ('res', 12, 1)),
            decoder_modulated=True,
        ),
    ),
    'hole': dataclasses.replace(
        CONFIG,
        num_chains=32,
        data=DataConfig(flip=True),
        vae=VAEConfig(truth_weight=1.0, guess_weight=1.0, mean_weight=1.0),
        condition=ConditionConfig('random_hole', edge_profiles=0.5),
        network=dataclasses.replace(CONFIG.network, decoder=(('down', 8, 3), ('up', 8, 3))),
    ),
}


def compile_with_shard_map(step, config, devices):
    """As `compile_step`, by jit and shard_map; `config.steps_per_call` is 1."""
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS_NAME,))
    everywhere, shares = PartitionSpec(), PartitionSpec(AXIS_NAME)

    def once(key, states, images):  # `[1, 1, B / D, H, W, C]`.
        return iterate(key, states, images[0, 0], step, config, AXIS_NAME)

    call = jax.jit(
        jax.shard_map(
            once,
            mesh=mesh,
            in_specs=(everywhere, everywhere, shares),
            out_specs=everywhere,
            check_vma=False,
        ),
        donate_argnums=1,
    )
    sharding = jax.sharding.NamedSharding(mesh, shares)

    def run(key, states, images, num_steps):
        assert num_steps == 1
        return call(key, states, jax.device_put(np.asarray(images), sharding))

    return run


def train(config, states, images, num_steps, devices, steps_per_call, compiled=compile_step):
    """The states after `num_steps`, the last metrics, and how often a later call compiled."""
    config = dataclasses.replace(config, steps_per_call=steps_per_call)
    key = jax.random.key(0)
    states = place_states(states, devices)
    call = compiled(METHODS[config.method].step, config, devices)
    gather = hold_images(images, devices)
    late_compilations = []
    for first in range(0, num_steps, steps_per_call):
        steps = range(first, first + steps_per_call)
        indices = np.stack(
            [batch_indices(key, step, len(images), config.batch_size) for step in steps]
        )
        turns = min(steps_per_call, num_steps - first)
        states, metrics = call(key, states, gather(indices), turns)
        jax.block_until_ready(metrics)
        if first == 0:
            jax.monitoring.clear_event_listeners()
            jax.monitoring.register_event_duration_secs_listener(
                lambda event, *_, **__: 'compile' in event and late_compilations.append(event)
            )
    jax.monitoring.clear_event_listeners()
    return states, metrics, len(late_compilations)


def fresh_states(config, dtype):
    """As every run begins, with parameters of the given precision."""
    jax.config.update('jax_enable_x64', dtype == 'float64')
    cast = lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    return jax.device_get(jax.tree.map(cast, create_states(jax.random.key(0), config)))


def save(path, states, metrics, late_compilations):
    leaves = jax.tree_util.tree_leaves_with_path((states, metrics))
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    np.savez(path, late_compilations=late_compilations, **arrays)


def main(folder, num_steps, dtype, name, *runs):
    config = CONFIGS.get(name) or rival(name)
    images = load_images(config.data)
    fresh = fresh_states(config, dtype)
    for run in runs:
        size, _, with_shard_map = run.partition('-')
        num_devices, steps_per_call = map(int, size.split('x'))
        devices = jax.devices()[:num_devices]
        compiled = compile_with_shard_map if with_shard_map else compile_step
        result = train(config, fresh, images, int(num_steps), devices, steps_per_call, compiled)
        save(f'{folder}/{run}.npz', *result)


if __name__ == '__main__':
    main(*sys.argv[1:])
