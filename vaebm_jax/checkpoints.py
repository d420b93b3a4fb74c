"""States on disk by Orbax, the config beside them, and a trained run read back."""

import os
import pathlib

import jax
import orbax.checkpoint as ocp

from vaebm_jax.base import States
from vaebm_jax.config import Config, from_json, refuse_other_networks
from vaebm_jax.errors import UserError
from vaebm_jax.train_state import create_states


def checkpoint_manager(workdir: str | os.PathLike, keep: int = 0) -> ocp.CheckpointManager:
    """Orbax's manager of `<workdir>/checkpoints/<step>/`, keeping the newest `keep` (0: all)."""
    return ocp.CheckpointManager(
        pathlib.Path(workdir).absolute() / 'checkpoints',
        # Not in the background: the next call donates the very buffers that are being written.
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep or None, enable_async_checkpointing=False
        ),
    )


def save(manager: ocp.CheckpointManager, states: States) -> None:
    """Saves the states under their own step; whole on disk when this returns."""
    manager.save(int(states.energy.step), args=ocp.args.StandardSave(states))


def restore(manager: ocp.CheckpointManager, step: int, config: Config) -> States:
    """The states of a step, on this process's first device."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.eval_shape(lambda key: create_states(key, config), jax.random.key(0))
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes
    )
    return manager.restore(step, args=ocp.args.StandardRestore(target))


def load_config(workdir: str | os.PathLike) -> Config:
    """The resolved config of a run."""
    path = pathlib.Path(workdir) / 'config.json'
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(
            f'workdir must hold a run, but {path} cannot be read ({error.strerror})'
        ) from error
    try:
        return from_json(text)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error


def load(
    workdir: str | os.PathLike, step: int | None = None, config: Config | None = None
) -> tuple[States, Config]:
    """Reads a trained run back: its three models and its config.

    Args:
      workdir: of the run.
      step: which checkpoint; None: the newest.
      config: in place of the run's own, with the same networks.

    Raises:
      UserError: if the workdir holds no run, no such checkpoint, or one of other networks.
    """
    own = load_config(workdir)
    config = own if config is None else config
    refuse_other_networks(own, config)
    folder = pathlib.Path(workdir) / 'checkpoints'
    if not folder.is_dir():
        raise UserError(f'workdir has no checkpoint yet: {folder} is not there')
    with checkpoint_manager(workdir) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise UserError(f'workdir has no checkpoint yet: {folder} is empty')
        step = steps[-1] if step is None else step
        if step not in steps:
            raise UserError(f'step must be one of {steps} in {folder}, got {step}')
        try:
            return restore(manager, step, config), config
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = ' '.join(str(error).split())[:200]
            raise UserError(
                f'the checkpoint {folder / str(step)} is not one of this config: {reason}'
            ) from error


def start_from(states: States, workdir: str | os.PathLike) -> States:
    """Fresh states with the parameters, and their averages, of another run (`init_from`).

    Raises:
      UserError: if its networks are not of the same shape.
    """
    source, _ = load(workdir)
    started = {}
    for name in ('energy', 'encoder', 'decoder'):
        fresh, trained = getattr(states, name), getattr(source, name)
        shapes = [jax.tree.map(lambda leaf: leaf.shape, state.params) for state in (fresh, trained)]
        if shapes[0] != shapes[1]:
            raise UserError(f'init_from: the {name} in {workdir} has other layers than the config')
        started[name] = fresh.replace(params=trained.params, ema_params=trained.ema_params)
    return States(**started)
