"""Checkpoints: saving and restoring states with Orbax, and loading a trained run.

Orbax restores a file with a flipped bit without an error. So a checkpoint includes the digests of
its files, and is read only if they match.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp

from vaebm_jax.config import Config, from_json, refuse_other_networks
from vaebm_jax.data.loading import open_images
from vaebm_jax.data.sources import source_of
from vaebm_jax.methods import create_states
from vaebm_jax.models import spectral
from vaebm_jax.models.states import States
from vaebm_jax.runtime import distributed, log
from vaebm_jax.runtime.atomic_files import local_folder, sync_tree, write_atomically, written
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training import pretrained
from vaebm_jax.training.parallel import all_devices, global_states

_DIGESTS = 'digests.json'
_NO_DIGESTS = f'it has no {_DIGESTS}, so it cannot be checked'
_MOST_DIGESTS = 10**7  # Bytes; a checkpoint has some dozens of files.


def checkpoint_manager(
    workdir: str | os.PathLike, keep: int = 0, read_only: bool = False
) -> ocp.CheckpointManager:
    """Orbax's manager of `<workdir>/checkpoints/<step>/`, keeping the newest `keep` (0: all).

    A partial checkpoint of a killed run is deleted, but not with `read_only`: another run may be
    writing it.
    """
    return ocp.CheckpointManager(
        local_folder(workdir).absolute() / 'checkpoints',
        item_handlers=ocp.StandardCheckpointHandler(),
        options=ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep or None,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            # Not in the background: the next call donates the buffers being written.
            enable_async_checkpointing=False,
        ),
    )


def save(
    manager: ocp.CheckpointManager, states: States, rollbacks: int = 0, files: dict | None = None
) -> None:
    """Saves the states under their step; completely on disk when this returns.

    Args:
      manager: of the run.
      states: to save, as returned by `place_states`; all processes write their part.
      rollbacks: number of roll-backs so far; `rollbacks_at` reads it.
      files: the `listing` of the folder of images, if there is one; `files_at` reads it.
    """
    step = int(states.step)
    folder = pathlib.Path(manager.directory) / str(step)
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(states))
    distributed.agreed(lambda: _check_space(folder, needed))
    with _written(folder):
        manager.save(
            step,
            args=ocp.args.StandardSave(_stored(global_states(states, all_devices()))),
            custom_metadata={
                'rollbacks': rollbacks,
                'was_trained': _trained_before(states),
                'files': files,
            },
        )
    if distributed.is_first():
        with written(folder):
            sync_tree(folder)  # Orbax does so only with its arrays.
        write_atomically(folder / _DIGESTS, json.dumps(digests(folder), indent=1).encode())
    distributed.wait_for_all('checkpoint')


def _check_space(folder: pathlib.Path, needed: int) -> None:
    """Checked first, so that a nearly full disk is not filled with a partial checkpoint."""
    with written(folder):
        if shutil.disk_usage(folder.parent).free < needed:
            raise OSError(errno.ENOSPC, f'a checkpoint needs {needed / 1e6:.1f} MB of free space')


@contextlib.contextmanager
def _written(folder: pathlib.Path) -> Iterator[None]:
    """As `atomic_files.written`, for Orbax, which puts the system's error in a ValueError."""
    with written(folder):
        try:
            yield
        except ValueError as error:
            number = re.search(r"os_error_code='(\d+)'", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def digests(folder: pathlib.Path) -> dict[str, str]:
    """The SHA-256 of every file of a checkpoint, by its path in the folder."""
    files = sorted(path for path in folder.rglob('*') if path.is_file() and path.name != _DIGESTS)
    found = {}
    for path in files:
        with path.open('rb') as file:
            digest = hashlib.file_digest(file, 'sha256').hexdigest()
        found[path.relative_to(folder).as_posix()] = digest
    return found


def damage(folder: pathlib.Path) -> str:
    """The first damaged file of a checkpoint, in words; '' if there is none."""
    try:
        with (folder / _DIGESTS).open('rb') as file:
            written = json.loads(file.read(_MOST_DIGESTS))
        written = {str(name): str(digest) for name, digest in written.items()}
    except FileNotFoundError:
        return _NO_DIGESTS
    except (OSError, ValueError, AttributeError):
        return f'{_DIGESTS} cannot be read'
    found = digests(folder)
    for name in sorted(written.keys() | found.keys()):
        if name not in found:
            return f'{name} is missing'
        if written.get(name) != found[name]:
            return f'{name} has changed'
    return ''


def newest_complete(manager: ocp.CheckpointManager, strict: bool = False) -> int | None:
    """The newest step that can be restored; newer, damaged checkpoints are named and deleted.

    With several processes, process 0 decides for all.

    A checkpoint without digests, from a run that was killed between the two, counts as damaged if
    there is a complete one before it, and is used if there is none.

    Args:
      manager: of the run.
      strict: refuse to continue if the newest is damaged.

    Returns:
      The step, or None if nothing was saved yet.

    Raises:
      UserError: if every checkpoint is damaged, or the newest with `strict`.
    """
    newest, beyond = distributed.agreed(lambda: _newest_complete(manager, strict))
    for step in beyond:  # The run will save these steps again.
        manager.delete(step)
    return newest


def _newest_complete(manager, strict):
    """The step, or None, and those after it."""
    steps = sorted(manager.all_steps(), reverse=True)
    reasons = {}
    for step in steps:
        folder = pathlib.Path(manager.directory) / str(step)
        reasons[step] = damage(folder)
        if not reasons[step]:
            break
        log.say(f'the checkpoint {folder} is damaged: {reasons[step]}')
        if strict:
            raise UserError(f'--resume=strict resumes only from the newest checkpoint: {folder}')
    usable = [step for step, reason in reasons.items() if not reason]
    usable += [step for step, reason in reasons.items() if reason == _NO_DIGESTS]
    if steps and not usable:
        raise UserError(
            f'every checkpoint in {manager.directory} is damaged; to start again, delete them'
        )
    newest = usable[0] if usable else None
    return newest, [step for step in steps if step > newest]


def restore(manager: ocp.CheckpointManager, step: int, config: Config) -> States:
    """The states of a step, on this process's first device."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.eval_shape(lambda key: create_states(key, config), jax.random.key(0))
    like = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
    target, held = jax.tree.map(like, _stored(shapes)), manager.item_metadata(step)
    has_clock = 'step' in held
    if not has_clock:  # Of a version before the run's step was saved, when all had an energy.
        target = {'energy': jax.tree.map(like, held['energy'])} | target
        del target['step']
    found = manager.restore(step, args=ocp.args.StandardRestore(target))
    trained_before = _metadata(manager, step).get('was_trained', ())
    models = {
        name: model.replace(**found[name], was_trained=name in trained_before)
        for name, model in shapes.models.items()
    }
    if not has_clock:
        # The step was saved with every model, trained or not.
        found['step'] = found['energy']['step']
        models = {
            name: model.replace(step=jnp.copy(_adam_count(model.opt_state)))
            for name, model in models.items()
        }
    return States(models=models, step=found['step'], memory=found.get('memory'))


def _adam_count(opt_state):
    is_adam = lambda state: isinstance(state, optax.ScaleByAdamState)
    return next(filter(is_adam, jax.tree.leaves(opt_state, is_leaf=is_adam))).count


def _stored(states: States) -> dict[str, Any]:
    """The content of a checkpoint: the models by name, the step, and the memory if there is one.

    Fields that are None are left out, so a model without `extra` is stored as before that field
    existed.
    """
    fields = ('step', 'params', 'opt_state', 'ema_params', 'extra')
    stored = {
        name: {
            field: getattr(model, field) for field in fields if getattr(model, field) is not None
        }
        for name, model in states.models.items()
    }
    stored['step'] = states.step
    return stored if states.memory is None else stored | {'memory': states.memory}


def rollbacks_at(manager: ocp.CheckpointManager, step: int) -> int:
    """The number of roll-backs of the run when it saved this step."""
    return _metadata(manager, step).get('rollbacks', 0)


def files_at(manager: ocp.CheckpointManager, step: int) -> dict | None:
    """The `listing` of the run's folder of images when it saved this step.

    None for other data, or if the checkpoint is from a version that did not save it.
    """
    return _metadata(manager, step).get('files')


def _metadata(manager, step):
    return manager.metadata(step).custom_metadata or {}


def _trained_before(states):
    """The names of the models whose initial parameters came from another run."""
    return [name for name, model in states.models.items() if model.was_trained]


def load_config(workdir: str | os.PathLike) -> Config:
    """The config of a run, or of pretrained models (`pretrained:NAME`)."""
    if name := pretrained.name_of(workdir):
        return pretrained.load_pretrained_config(name)
    path = local_folder(workdir) / 'config.json'
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


@contextlib.contextmanager
def opened(workdir: str | os.PathLike) -> Iterator[tuple[ocp.CheckpointManager, list[int]]]:
    """Opens a run's checkpoints for reading; yields the manager and the sorted steps.

    Raises:
      UserError: if there is none.
    """
    folder = local_folder(workdir) / 'checkpoints'
    if not folder.is_dir():
        raise UserError(f'workdir has no checkpoint yet: {folder} does not exist')
    with checkpoint_manager(workdir, read_only=True) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise UserError(f'workdir has no checkpoint yet: {folder} is empty')
        yield manager, steps


def load(
    workdir: str | os.PathLike, step: int | None = None, config: Config | None = None
) -> tuple[States, Config]:
    """Loads a trained run: its models and its config.

    All processes have to call it; each gets the complete states on its first device.

    Args:
      workdir: of the run; `pretrained:NAME` stands for models that come with the package.
      step: of the checkpoint; None: the newest.
      config: in place of the run's config, with the same networks.

    Raises:
      UserError: if the workdir holds no run, no such checkpoint, a damaged one, or one of other
        networks.
    """
    saved = load_config(workdir)
    config = saved if config is None else config
    refuse_other_networks(saved, config)
    if name := pretrained.name_of(workdir):
        if step:
            raise UserError(f'step must be left out: {workdir} has no checkpoints')
        return pretrained.load_pretrained(name)[0], config
    folder = local_folder(workdir) / 'checkpoints'
    with opened(workdir) as (manager, steps):
        step = steps[-1] if step is None else step
        if step not in steps:
            raise UserError(f'step must be one of {steps} in {folder}, got {step}')
        reason = distributed.agreed(lambda: damage(folder / str(step)))
        if reason == _NO_DIGESTS:
            log.say(f'the checkpoint {folder / str(step)}: {reason}')
        elif reason:
            raise UserError(
                f'the checkpoint {folder / str(step)} is damaged: {reason}; choose another of '
                f'{steps} with --step'
            )
        try:
            return restore(manager, step, config), config
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = ' '.join(str(error).split())[:200]
            raise UserError(
                f'the checkpoint {folder / str(step)} does not fit this config: {reason}'
            ) from error


def refuse_other_files(workdir: str | os.PathLike, files: dict, num_steps: int) -> None:
    """Raises a UserError if the run would resume with other images than it started with.

    Args:
      workdir: of the run.
      files: the current `listing` of the folder of images.
      num_steps: of the run; a finished run is not checked.
    """
    if not (local_folder(workdir) / 'checkpoints').is_dir():
        return
    with checkpoint_manager(workdir, read_only=True) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            difference = other_files(files_at(manager, step), files)
            if not difference or step >= num_steps:
                return
            # The listing of a damaged one is ignored; those before it had the same files.
            if damage(pathlib.Path(manager.directory) / str(step)) in ('', _NO_DIGESTS):
                raise UserError(
                    f'the run in {workdir} cannot be resumed: {difference}; take another workdir '
                    f'and --config.init_from={workdir} to start from its parameters'
                )


def warn_of_seen_images(workdir: str | os.PathLike, step: int, config: Config) -> None:
    """Warns if the run may have been trained on held-out images of a folder."""
    if source_of(config.data).splits is not None:
        return
    folder = open_images(dataclasses.replace(config.data, skip_unreadable=False))
    if folder.has_splits:
        return
    with opened(workdir) as (manager, _):
        difference = other_files(files_at(manager, step), folder.listing)
    if difference:
        log.say(f'warning: the run may have trained on images of val and test: {difference}')
    elif not config.data.val_share + config.data.test_share:
        log.say('warning: no image is held out (data.test_share): test images were trained on')


def other_files(before: dict | None, now: dict) -> str:
    """In words, how a folder of images has changed; '' if it has not."""
    if before == now:
        return ''
    if before is None:
        return 'it is from a version that did not save the names of images'
    if before['count'] == now['count']:
        return f'data.dir holds {now["count"]} images as before, but with other names or values'
    return f'data.dir held {before["count"]} images before and holds {now["count"]} now'


def start_from(states: States, config: Config) -> States:
    """New states with the parameters, and their averages, of the run in `config.init_from`.

    A model that the other run does not have keeps its initial parameters.

    Raises:
      UserError: if its networks have other shapes, or it has none of this method's models.
    """
    workdir = config.init_from
    source, source_config = load(workdir)
    started = {}
    for name in [name for name in states.models if name in source.models]:
        fresh, trained = states.models[name], source.models[name]
        shapes = [jax.tree.map(lambda leaf: leaf.shape, state.params) for state in (fresh, trained)]
        if shapes[0] != shapes[1]:
            raise UserError(f'init_from: the {name} in {workdir} has other layers than the config')
        started[name] = fresh.replace(
            params=trained.params,
            ema_params=trained.ema_params,
            extra=fresh.extra and spectral.start(trained.params),
            was_trained=trained.was_trained or int(trained.step) > 0,
        )
    if not started:
        raise UserError(
            f'init_from: {workdir} holds no {" or ".join(states.models)}: its method is '
            f'{source_config.method}'
        )
    return states.replace(**started)


def refuse_other_start(config: Config) -> None:
    """Raises the errors of `start_from` before anything of the new run is written."""
    shapes = jax.eval_shape(lambda key: create_states(key, config), jax.random.key(0))
    start_from(shapes, config)
