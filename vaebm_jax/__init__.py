"""vaebm_jax: energy-based models of images, with a VAE as amortized Langevin sampler."""

import vaebm_jax.runtime.start  # noqa: F401 - first: Ctrl-C during the imports below.

__version__ = '0.1.0'

import vaebm_jax.data.sources  # noqa: F401 - validate knows its rows.
from vaebm_jax.data.batch import Batch, to_uint8
from vaebm_jax.data.conditions import make_condition
from vaebm_jax.evaluation.chains import effective_sample_size, split_r_hat
from vaebm_jax.methods import create_states
from vaebm_jax.methods.generate import generate, recover
from vaebm_jax.methods.vaebm import train_step
from vaebm_jax.models.apply import energy_fn
from vaebm_jax.models.states import States, TrainState
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.ais import (
    Gaussian,
    annealed_importance_sampling,
    bits_per_dimension,
    bracket_log_z,
    gaussian_of,
    tune,
)
from vaebm_jax.samplers.langevin import langevin_sample
from vaebm_jax.samplers.mala import mala_sample

__all__ = [
    'Batch',
    'Gaussian',
    'States',
    'TrainState',
    'UserError',
    'annealed_importance_sampling',
    'bits_per_dimension',
    'bracket_log_z',
    'create_states',
    'effective_sample_size',
    'energy_fn',
    'gaussian_of',
    'generate',
    'langevin_sample',
    'load',
    'load_pretrained',
    'make_condition',
    'mala_sample',
    'recover',
    'split_r_hat',
    'to_uint8',
    'train_step',
    'tune',
]


def __getattr__(name):
    # Reading a run back needs Orbax; the rest must not.
    if name == 'load':
        from vaebm_jax.training.checkpoints import load

        return load
    if name == 'load_pretrained':
        from vaebm_jax.training.pretrained import load_pretrained

        return load_pretrained
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
