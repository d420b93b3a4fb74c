"""Checks a config: each setting by its own range, then rules across settings."""

from collections.abc import Iterator, Mapping
from typing import Any

from vaebm_jax.config.sections import Config
from vaebm_jax.config.settings import ROW, described, flatten, one_of
from vaebm_jax.runtime.errors import UserError

# Tables of which a setting names a row, by the setting's dotted name; each table's module enters
# its own. A row has `needs(config)`: settings that do not fit it, each with what would be right.
CHOICES: dict[str, Mapping[str, Any]] = {}

KINDS = {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
    tuple: 'a tuple',
}


Wrong = Iterator[tuple[str, str]]  # Names of settings, and what would be right.


def validate(config: Config, choices: Mapping[str, Mapping[str, Any]] = CHOICES) -> None:
    """Raises one UserError that names every wrong field, its value and what would be right.

    Rules across fields are checked once each field is right by itself.

    Args:
      config: the experiment.
      choices: all tables of which a setting names a row.
    """
    wrong = [
        f'{name} must be {right}, got {value!r}'
        for name, (field, value) in described(config).items()
        if (right := _right(name, value, field, choices))
    ]
    if not wrong:
        values = flatten(config)
        rules = [*RULES, *(rows[values[name]].needs for name, rows in choices.items())]
        pairs = [pair for rule in rules for pair in rule(config)]
        wrong = [
            f'{name} must be {right}, got {values[name]!r}' if name in values else f'{name} {right}'
            for name, right in pairs
        ]
    if wrong:
        raise UserError('; '.join(wrong))


def _right(name, value, field, choices):
    """What a setting must be, in words; '' if it is."""
    kind = type(field.default)
    if type(value) not in ((int, float) if kind is float else (kind,)):
        return KINDS[kind]
    for allowed in field.metadata['ranges']:
        allowed = one_of(*choices[name]) if allowed is ROW else allowed
        if not allowed.includes(value):
            return allowed.words
    return ''


def _mean_is_a_pixel(config: Config) -> Wrong:
    end = 1 + config.data.headroom
    if not abs(config.energy.reference_mean) <= end:
        yield 'energy.reference_mean', f'in [{-end:g}, {end:g}]'


def _parts_are_smaller(config: Config) -> Wrong:
    size = config.data.image_size
    if config.data.load_size and config.data.load_size < size:
        yield 'data.load_size', f'0 or at least data.image_size = {size}'


def _some_images_are_trained_on(config: Config) -> Wrong:
    if config.data.val_share + config.data.test_share >= 1:
        yield 'data.val_share + data.test_share', 'must leave images to train on'


def _condition_or_none(config: Config) -> Wrong:
    if config.condition.kind == 'none':
        without = '0 where condition.kind is none: there is one truth for each condition'
        for name in ('guess_weight', 'mean_weight'):
            if getattr(config.vae, name):
                yield f'vae.{name}', without
        if any(row[0] == 'down' for row in config.network.decoder):
            reads = 'another where network.decoder has down rows: they read a condition'
            yield 'condition.kind', reads
        return
    if config.data.headroom:
        stays = '0 where condition.kind is not none: observed pixels stay as they are'
        yield 'data.headroom', stays
    if config.num_chains % config.batch_size:
        multiple = f'a multiple of batch_size = {config.batch_size} where images have a condition'
        yield 'num_chains', multiple


def _something_teaches_the_encoder(config: Config) -> Wrong:
    if not config.vae.bound_weight and not config.vae.truth_weight:
        yield 'vae.bound_weight or vae.truth_weight', 'must be above 0: they teach the encoder'


def _reference_term(config: Config) -> Wrong:
    energy, std = config.energy, config.energy.reference_std
    if std:
        if energy.l2:
            yield 'energy.l2', '0 where energy.reference_std is not 0'
        if config.langevin.step_size >= 2 * std:
            stable = f'below 2 * energy.reference_std = {2 * std:g}, or the chain diverges'
            yield 'langevin.step_size', stable
        return
    if not energy.scale:
        yield 'energy.scale', 'given where energy.reference_std is 0'
    if energy.reference_mean:
        without = '0 where energy.reference_std is 0: there is no reference term'
        yield 'energy.reference_mean', without


RULES = (
    _mean_is_a_pixel,
    _parts_are_smaller,
    _some_images_are_trained_on,
    _condition_or_none,
    _something_teaches_the_encoder,
    _reference_term,
)
