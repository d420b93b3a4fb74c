"""Many samples of a trained run: over all devices, in parts cached on disk."""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator

import chex
import jax
import numpy as np

from vaebm_jax.config import Config, to_json
from vaebm_jax.methods import METHODS
from vaebm_jax.methods.generate import generate_keys, refine
from vaebm_jax.models.states import States
from vaebm_jax.runtime import distributed, log
from vaebm_jax.runtime.atomic_files import kept
from vaebm_jax.samplers.keys import chain_keys
from vaebm_jax.training.parallel import place_rows, place_states

Samples = dict[str, np.ndarray]

_PART = 512


class Draws:
    """`num_samples` samples by each of several stages, with the same z and the same noise.

    The stages are the method's, such as `ancestral` and `refined`, and `refined_2x`, by a second
    chain as long as the first. Sample i depends only on the seed and i. A sequence of parts, dicts
    of `[n, H, W, C]` float32; each is cached on disk until `discard`.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        states: States,
        config: Config,
        num_samples: int,
        stages: tuple[str, ...],
    ):
        """`states` have the parameters to use as `params`."""
        self.config, self.num_samples, self.stages = config, num_samples, stages
        self.devices = jax.local_devices()
        self.states = place_states(states, self.devices)
        models = fingerprint({name: model.params for name, model in states.models.items()})
        # A call's rounding may depend on its size.
        self.size = min(_PART, num_samples)
        what = [to_json(config), int(states.step), models, list(stages), self.size]
        name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        self.folder = workdir / 'samples' / 'parts' / name

    def __len__(self) -> int:
        return -(-self.num_samples // self.size)

    def __getitem__(self, index: int) -> Samples:
        first = index * self.size
        part = kept(self.folder / f'{first:08d}.npz', lambda: self._draw(first))
        return {name: images[: self.num_samples - first] for name, images in part.items()}

    def __iter__(self) -> Iterator[Samples]:
        indices = range(len(self))
        for index in log.tracked(indices, 'drawing', 'images', self.num_samples, self.size):
            yield self[index]

    def share(self, work: Callable[[Samples], object]) -> None:
        """Draws this process's share of the parts and calls `work` on each; nothing if alone.

        With several processes, to be called in all before process 0 iterates over all parts.
        """
        local = distributed.share(len(self))
        if local:
            for index in log.tracked(local, 'drawing this share', 'parts', len(local)):
                work(self[index])
        distributed.wait_for_all('drawn')

    def discard(self) -> None:
        """Deletes the cached parts."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _draw(self, first):
        key = jax.random.key(self.config.seed, impl=self.config.generator)
        size = -(-self.size // len(self.devices)) * len(self.devices)
        keys = tuple(
            place_rows(chain_keys(key, size, first), self.devices) for key in generate_keys(key)
        )
        part = _sample(keys, self.states, self.config)
        if 'refined_2x' in self.stages:
            num_steps = self.config.langevin.num_steps
            part['refined_2x'] = refine(
                keys[1], self.states, self.config, part['refined'], num_steps, num_steps
            )
        return {name: np.asarray(part[name][: self.size]) for name in self.stages}


@jax.jit(static_argnames='config')
def _sample(keys: tuple[chex.PRNGKey, chex.PRNGKey], states: States, config: Config) -> Samples:
    return METHODS[config.method].sample(keys, states, config, len(keys[0]))


def fingerprint(tree: chex.ArrayTree) -> str:
    """A SHA-256 of arrays and of the system that computes with them.

    Of the arrays' paths in the tree, shapes, types and bytes, and of JAX's version and the kinds of
    devices, whose results differ in the last bits.
    """
    devices = sorted({(device.platform, device.device_kind) for device in jax.local_devices()})
    digest = hashlib.sha256(json.dumps([jax.__version__, devices]).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = np.asarray(leaf)
        about = [jax.tree_util.keystr(path), leaf.shape, str(leaf.dtype)]
        digest.update(json.dumps(about).encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()
