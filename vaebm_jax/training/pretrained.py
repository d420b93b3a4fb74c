"""Trained models that come with the package: averaged parameters in 16 bits, and what they are.

`weights/<name>.npz` holds the averages, `weights/<name>.json` the config, how they were trained and
what they scored. tools/pretrained.py writes both.
"""

import functools
import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vaebm_jax.config import Config, from_json
from vaebm_jax.methods import create_states
from vaebm_jax.models import spectral
from vaebm_jax.models.states import States
from vaebm_jax.runtime.errors import UserError

FOLDER = pathlib.Path(__file__).parents[1] / 'weights'
_PREFIX = 'pretrained:'


def pretrained_names() -> list[str]:
    """The names that `load_pretrained` knows."""
    return sorted(path.stem for path in FOLDER.glob('*.json'))


def name_of(workdir: str | os.PathLike) -> str:
    """The name in `pretrained:NAME`, which stands for a workdir to read; '' for any other."""
    text = os.fspath(workdir)
    return text.removeprefix(_PREFIX) if text.startswith(_PREFIX) else ''


def workdir_of(name: str) -> str:
    """What stands for a workdir to read where these models are meant."""
    return _PREFIX + name


def load_pretrained(name: str) -> tuple[States, Config]:
    """Trained models and their config, from files of the package.

    Args:
      name: one of `pretrained_names()`, such as 'digits' or 'mnist'.

    Returns:
      The models at step 0, with a fresh optimizer and the averages as parameters, rounded to 16
      bits; and their config, whose `init_from` names them: a run of it starts from them.

    Raises:
      UserError: if there is no such name, or its file is not the one that was published.
    """
    about = describe(name)
    path = FOLDER / f'{name}.npz'
    if hashlib.sha256(path.read_bytes()).hexdigest() != about['sha256']:
        raise UserError(f'{path} is damaged: its SHA-256 is not that of {name}.json')
    with np.load(path) as arrays:
        stored = unflatten_dict(dict(arrays), sep='/')
    config = _config_of(name, about)
    shapes = jax.eval_shape(functools.partial(create_states, config=config), jax.random.key(0))
    models = {}
    for model_name, model in shapes.models.items():
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), stored[model_name])
        models[model_name] = model.replace(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema_params=jax.tree.map(jnp.copy, params),
            opt_state=model.tx.init(params),
            extra=model.extra and spectral.start(params),
            was_trained=True,
        )
    return States(models=models, step=jnp.zeros((), jnp.int32)), config


def load_pretrained_config(name: str) -> Config:
    """The config of `load_pretrained`."""
    return _config_of(name, describe(name))


def _config_of(name, about):
    return from_json(json.dumps(about['config'] | {'init_from': workdir_of(name)}))


def describe(name: str) -> dict[str, Any]:
    """How the models were trained and what they scored: the content of `<name>.json`.

    Raises:
      UserError: if there is no such name.
    """
    if name not in pretrained_names():
        known = ', '.join(pretrained_names())
        raise UserError(f'there are pretrained models {known}; got {name!r}')
    return json.loads((FOLDER / f'{name}.json').read_text())


def stored_arrays(states: States) -> dict[str, np.ndarray]:
    """What `<name>.npz` holds of trained models: their averages in 16 bits, by path."""
    averages = {name: model.ema_params for name, model in states.models.items()}
    leaves = flatten_dict(averages, sep='/').items()
    arrays = {path: np.asarray(leaf, np.float16) for path, leaf in leaves}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError('a parameter is too large for 16 bits')
    return arrays
