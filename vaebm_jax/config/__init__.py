"""An experiment's settings. A file in `configs/` fills them in; `validate` checks them.

Only the standard library is imported, so a config file can be read anywhere. Command-line flags
write to a config; a compiled function takes it as a static argument. So it can be changed until it
is first used, and never afterwards. Sequences are tuples.
"""

from vaebm_jax.config.json import from_json, to_json
from vaebm_jax.config.presets import cifar10_paper_network, mnist_paper_network, recovery_network
from vaebm_jax.config.resume import FREE_ON_RESUME, refuse_other_networks, refuse_other_run
from vaebm_jax.config.sections import (
    ConditionConfig,
    Config,
    DataConfig,
    DivergenceConfig,
    EnergyConfig,
    LangevinConfig,
    NetworkConfig,
    ScheduleConfig,
    VAEConfig,
)
from vaebm_jax.config.settings import Settings, described, flatten, renamed
from vaebm_jax.config.validate import CHOICES, KINDS, validate
from vaebm_jax.runtime.errors import UserError

__all__ = [
    'CHOICES',
    'FREE_ON_RESUME',
    'KINDS',
    'ConditionConfig',
    'Config',
    'DataConfig',
    'DivergenceConfig',
    'EnergyConfig',
    'LangevinConfig',
    'NetworkConfig',
    'ScheduleConfig',
    'Settings',
    'VAEConfig',
    'choose',
    'cifar10_paper_network',
    'described',
    'flatten',
    'from_json',
    'mnist_paper_network',
    'recovery_network',
    'refuse_other_networks',
    'refuse_other_run',
    'renamed',
    'to_json',
    'validate',
]


def choose(variant: str, **variants: Config) -> Config:
    """The variant that follows a config file's name behind a colon; `default` without one."""
    name = variant or 'default'
    if name not in variants:
        raise UserError(f'there is no variant {variant!r}; there are: {", ".join(variants)}')
    return variants[name]
