"""A config as JSON, which a workdir keeps."""

import dataclasses
import json
from typing import Any

from vaebm_jax.config.sections import Config
from vaebm_jax.runtime.errors import UserError


def to_json(config: Config) -> str:
    """The whole config as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def from_json(text: str) -> Config:
    """Reads what `to_json` wrote; a field left out has its default.

    Fields may have the names that they had before (`Settings.RENAMED`).

    Raises:
      UserError: if the text is no JSON object or names a field that there is not, or one twice.
    """
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f'not JSON: {error}') from error
    if not isinstance(tree, dict):
        raise UserError(f'a config is a JSON object, got {type(tree).__name__}')
    config = Config()
    _fill(config, tree, '')
    return config


def _fill(section: Any, tree: dict[str, Any], prefix: str) -> None:
    names = {setting.name for setting in dataclasses.fields(section)}
    for given, value in tree.items():
        name = section.RENAMED.get(given, given)
        if name != given and name in tree:
            raise UserError(f'{prefix}{given} is {prefix}{name} now, and both are given')
        if name not in names:
            raise UserError(f'there is no config field {prefix}{name}')
        inner = getattr(section, name)
        if not dataclasses.is_dataclass(inner):
            setattr(section, name, _as_tuple(value))
        elif isinstance(value, dict):
            _fill(inner, value, f'{prefix}{name}.')
        else:
            raise UserError(f'{prefix}{name} must be an object of settings, got {value!r}')


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
