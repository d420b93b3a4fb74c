"""When training diverges, its step is not kept: back to the last checkpoint, with other noise."""

import dataclasses
import math

import jax

from vaebm_jax.config import Config
from vaebm_jax.methods.parts import Metrics


class Diverged(Exception):
    """A step's numbers are not finite, or its energies explode; its states are not to be saved.

    Attributes:
      step: after how many iterations.
      values: the step's metrics.
      reason: some of those that are at fault, in words.
    """

    def __init__(self, step: int, values: dict[str, float], wrong: list[str]):
        self.step, self.values = step, values
        first = sorted(wrong, key=lambda name: not name.startswith('energy_'))[:3]
        self.reason = ', '.join(f'{name} is {values[name]:.4g}' for name in first)
        super().__init__(f'step {step}: {self.reason}')


def sound_values(step: int, metrics: Metrics, config: Config) -> dict[str, float]:
    """The metrics as Python's numbers.

    The gradients' norms are among them, so parameters that are about to be lost are seen before
    the energies are.

    Raises:
      Diverged: if one is not finite, or a mean energy is beyond `config.divergence.max_energy`.
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
    """The config with the learning rates that are left after so many roll-backs."""
    factor = config.divergence.rate_factor**rollbacks
    return dataclasses.replace(
        config,
        **{
            name: dataclasses.replace(section, learning_rate=factor * section.learning_rate)
            for name, section in (('energy', config.energy), ('vae', config.vae))
        },
    )
