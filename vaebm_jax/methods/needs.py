"""What several methods need of a config: for `needs` in METHODS."""

from collections.abc import Iterator

from vaebm_jax.config import Config


def no_condition(config: Config) -> Iterator[tuple[str, str]]:
    """Of a method that draws whole images."""
    if config.condition.kind != 'none':
        yield 'condition.kind', f'none with method {config.method}, which reads no condition'


def a_condition(config: Config) -> Iterator[tuple[str, str]]:
    """Of a method that recovers images."""
    if config.condition.kind == 'none':
        yield 'condition.kind', f'another with method {config.method}, which reads a condition'


def patches(config: Config) -> Iterator[tuple[str, str]]:
    """Of a method that recovers images, with critics of patches."""
    yield from a_condition(config)
    if any(row[0] == 'dense' for row in config.network.energy):
        without = f'without dense rows with method {config.method}, whose critic gives maps'
        yield 'network.energy', without
