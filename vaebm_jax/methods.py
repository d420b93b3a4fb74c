"""How methods differ but for their steps: what a run draws, and which settings it does not use."""

import fnmatch
from typing import NamedTuple

from vaebm_jax.config import Config
from vaebm_jax.errors import UserError


class Method(NamedTuple):
    """What follows from `config.method`.

    Attributes:
      samplers: the stages of a sample in order, ancestral and, by an energy, refined.
      unused: settings that change nothing; `langevin.*` is a whole section.
    """

    samplers: tuple[str, ...]
    unused: tuple[str, ...] = ()


METHODS = {
    'vaebm': Method(('ancestral', 'refined')),
    'vae': Method(
        ('ancestral',),
        (
            'num_chains',
            'warmup_steps',
            'langevin.*',
            'energy.*',
            'vae.bound_weight',
            'vae.known_z_weight',
            'vae.truth_weight',
            'network.energy',
            'network.energy_outputs',
            'schedule.energy_steps',
            'condition.moves',
            'divergence.max_energy',
        ),
    ),
}


def has_energy(config: Config) -> bool:
    """Whether the method trains an energy, which refines samples."""
    return 'refined' in METHODS[config.method].samplers


def is_unused(name: str, config: Config) -> bool:
    """Whether the method has no use for a setting, by its dotted name."""
    return any(fnmatch.fnmatchcase(name, unused) for unused in METHODS[config.method].unused)


def refuse_without_energy(mode: str, config: Config) -> None:
    """Raises a UserError where a mode measures an energy that the method does not train."""
    if not has_energy(config):
        raise UserError(f'--mode={mode} needs a run with an energy, got method={config.method!r}')


def untrained_energy(step: int, config: Config) -> str:
    """In words, if the energy of the checkpoint of this step has learned nothing; '' if it has."""
    if not has_energy(config) or step > config.warmup_steps or config.init_from:
        return ''
    return (
        f'warning: the energy is untrained at step {step}: the first {config.warmup_steps} steps '
        'train the VAE alone (warmup_steps), so refined samples mean nothing'
    )
