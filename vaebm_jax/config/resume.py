"""What may differ between a run and its continuation, or between a checkpoint and its use."""

from vaebm_jax.config.sections import Config
from vaebm_jax.config.settings import flatten
from vaebm_jax.runtime.errors import UserError

# What may differ between a run and its continuation; any other difference is refused by name.
FREE_ON_RESUME = (
    'name',
    'num_steps',
    'log_every',
    'sample_every',
    'checkpoint_every',
    'keep_checkpoints',
    'steps_per_call',
    'convolution',
    'init_from',
    'langevin.prior_steps',
    'langevin.prior_step_size',
    'langevin.prior_temperature',
    'data.dir',
    'data.resident_bytes',
    'data.skip_unreadable',
    'divergence.max_energy',
    'divergence.max_rollbacks',
)


def refuse_other_run(old: Config, new: Config) -> None:
    """Raises a UserError that names the fields in which `new` cannot continue `old`'s run."""
    differences = _differences(old, new, lambda name: name not in FREE_ON_RESUME)
    if differences:
        raise UserError(
            'the workdir holds a run with other settings (use another workdir, or these): '
            + differences
        )


def refuse_other_networks(old: Config, new: Config) -> None:
    """Raises a UserError that names the fields in which `new` has other models than `old`."""
    shapes = ('latent_dim', 'data.image_size', 'data.num_channels', 'condition.kind')
    differences = _differences(old, new, lambda name: name.startswith('network.') or name in shapes)
    if differences:
        raise UserError(f'the workdir holds other networks: {differences}')


def _differences(old, new, counts):
    before, now = flatten(old), flatten(new)
    return '; '.join(
        f'{name} was {before[name]!r}, now {now[name]!r}'
        for name in before
        if before[name] != now[name] and counts(name)
    )
