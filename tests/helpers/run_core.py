"""The functional core on 8x8 digits, as arrays: python tests/helpers/run_core.py FILE"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax import (
    annealed_importance_sampling,
    create_states,
    gaussian_of,
    generate,
    langevin_sample,
    mala_sample,
    recover,
    tune,
)
from vaebm_jax.config import (
    ConditionConfig,
    Config,
    DataConfig,
    LangevinConfig,
    NetworkConfig,
    ScheduleConfig,
    VAEConfig,
)
from vaebm_jax.data.batch import as_pixels
from vaebm_jax.data.conditions import fixed_condition
from vaebm_jax.data.loading import load_images
from vaebm_jax.data.order import batch_indices
from vaebm_jax.evaluation.diagnostics import long_chains, metropolis
from vaebm_jax.methods import METHODS
from vaebm_jax.methods.generate import interpolate, reconstruct, revision
from vaebm_jax.samplers.ais import Schedule, bracket_log_z
from vaebm_jax.samplers.mala import acceptance
from vaebm_jax.training.parallel import compile_step

KEY = jax.random.key(0)
_DENSE = (('dense', 8),)
_CONV = NetworkConfig(
    energy=(('conv', 4, 4, 2), ('dense', 8)),
    encoder=(('conv', 4, 4, 2), ('dropout', 0.2)),
    decoder=(('map', 8), ('up', 4, 3)),
    activation='silu',
)
_BASE = Config(
    num_steps=6,
    batch_size=8,
    latent_dim=4,
    steps_per_call=2,
    data=DataConfig(name='digits', flip=True, dequantize=True, headroom=0.05),
    langevin=LangevinConfig(num_steps=3, max_drift=0.5),
    vae=VAEConfig(truth_weight=0.5, guess_weight=0.5),
    schedule=ScheduleConfig(name='linear', decay_share=1.0),
    network=NetworkConfig(
        energy=_DENSE, encoder=(*_DENSE, ('dropout', 0.2)), decoder=_DENSE, activation='leaky_relu'
    ),
)
CONFIGS = {
    'float32': _BASE,
    'bfloat16': dataclasses.replace(
        _BASE,
        dtype='bfloat16',
        network=_CONV,
        schedule=ScheduleConfig(name='exponential'),
    ),
    'vae': dataclasses.replace(_BASE, method='vae'),
} | {
    kind: dataclasses.replace(
        _BASE,
        condition=ConditionConfig(kind=kind, edge_profiles=profiles, jitter=jitter),
        dtype=dtype,
    )
    for kind, profiles, jitter, dtype in (
        ('center_hole', 0.5, 0.1, 'float32'),
        ('free_form', 0.0, 0.0, 'bfloat16'),
    )
}


def train_and_draw(name):
    """Two steps of training by the config of that name, and what the states then draw."""
    config = CONFIGS[name]
    images = load_images(config.data)
    rows = np.stack([batch_indices(KEY, step, len(images), 8) for step in range(2)])
    call = compile_step(METHODS[config.method].step, config, jax.devices()[:1])
    states, metrics = call(KEY, create_states(KEY, config), images[rows], 2)
    results = {'states': states, 'metrics': metrics}
    if config.condition.kind != 'none':
        condition = fixed_condition(as_pixels(images[:2]), config.condition)
        drawn = recover(KEY, states, config, condition, 2)
        return results | {'condition': condition, 'recover': drawn}
    results['generate'] = generate(KEY, states, config, 3)
    if name == 'float32':
        ways = [interpolate(KEY, states, config, 2, 3, is_arc) for is_arc in (False, True)]
        results['interpolate'] = ways
        results['reconstruct'] = reconstruct(states, as_pixels(images[:2]))
        results['revision'] = revision(KEY, states, config, 2)
        results['long_chains'] = long_chains(KEY, states, config)
        results['metropolis'] = metropolis(KEY, states, config)
    return results


def sample(dtype):
    """Chains of all samplers on points of a type, and log Z of those of float32."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)
    energy = lambda x: 0.5 * jnp.sum(jnp.square(x.astype(jnp.float32)), axis=1)
    points = x.astype(dtype)
    moves = jnp.array([[True, False, True]])
    settings = dict(num_steps=4, step_size=0.5)
    results = {
        'langevin': langevin_sample(KEY, energy, points, **settings),
        'bounded': langevin_sample(
            KEY, energy, points, max_drift=np.float32(0.1), first_step=2, moves=moves, **settings
        ),
        'mala': mala_sample(KEY, energy, points, **settings),
        'acceptance': acceptance(KEY, energy, points, step_size=np.float32(0.5)),
    }
    if dtype == 'float32':
        base = gaussian_of(x)
        schedule = Schedule(jnp.linspace(0.0, 1.0, 6, dtype=dtype), jnp.full(6, 0.5, dtype))
        results['annealed'] = annealed_importance_sampling(KEY, energy, base, schedule, x)
        results['tuned'] = tune(KEY, energy, base, num_temperatures=5)
        bracket = bracket_log_z(KEY, energy, base, x, num_chains=8, num_temperatures=5)
        results['bracket'] = bracket.lower, bracket.upper
    return results


def arrays(tree):
    """The leaves of a tree by their places, as NumPy has them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


if __name__ == '__main__':
    RESULTS = {name: train_and_draw(name) for name in CONFIGS}
    np.savez(sys.argv[1], **arrays(RESULTS | {'sample': sample('float32')}))
