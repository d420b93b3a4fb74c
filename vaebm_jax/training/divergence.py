"""Divergence: detected before a step is saved; the run then rolls back to its last checkpoint."""

import dataclasses
import math

import jax

from vaebm_jax.config import Config
from vaebm_jax.methods.parts import Metrics


class Diverged(Exception):
    """A step's metrics are not finite, or its energies too large; its states must not be saved.

    Attributes:
      step: number of iterations done.
      values: the step's metrics.
      reason: some of the wrong metrics, in words.
    """

    def __init__(self, step: int, values: dict[str, float], wrong: list[str]):
        self.step, self.values = step, values
        first = sorted(wrong, key=lambda name: not name.startswith('energy_'))[:3]
        self.reason = ', '.join(f'{name} is {values[name]:.4g}' for name in first)
        super().__init__(f'step {step}: {self.reason}')


def sound_values(step: int, metrics: Metrics, config: Config) -> dict[str, float]:
    """The metrics as Python numbers, checked.

    They include the norms of gradients, so bad parameters are detected before the energies are.

    Raises:
      Diverged: if one is not finite, or a mean energy exceeds `config.divergence.max_energy`.
    """
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    limit = config.divergence.max_energy or math.inf
    wrong = [
        name
        for name, value in values.items()
        if not math.isfinite(value) or (name.startswith('energy_') and abs(value) > limit)
    ]
    if wrong:
        raise Diverged(step, values, wrong)
    return values


def slowed(config: Config, rollbacks: int) -> Config:
    """The config with the learning rates after a number of roll-backs."""
    factor = config.divergence.rate_factor**rollbacks
    return dataclasses.replace(
        config,
        **{
            name: dataclasses.replace(section, learning_rate=factor * section.learning_rate)
            for name, section in (('energy', config.energy), ('vae', config.vae))
        },
    )
