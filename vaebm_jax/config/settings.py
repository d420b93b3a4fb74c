"""The base of config sections: settings with ranges, which cannot change after first use."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self


class Range(NamedTuple):
    """The allowed values of a setting: in words, and as a test."""

    words: str
    includes: Callable[[Any], bool]


def one_of(*names: str) -> Range:
    """One of some texts."""
    return Range('one of ' + ', '.join(names), lambda value: value in names)


# Of the table that `validate` is given for this setting.
ROW = Range('a row of a table', bool)


def setting(default: Any, meaning: str, *ranges: Range) -> Any:
    """A field of a section.

    Args:
      default: its type is the setting's; a float may be given as an integer, too.
      meaning: for `--help --config=FILE`.
      ranges: it must be in all of them; the message names the first that it is not in.
    """
    metadata = {'meaning': meaning, 'ranges': ranges}
    return dataclasses.field(default=default, metadata=metadata)


class Settings:
    """The base of a config and its sections: they cannot change after first use.

    JAX keeps a static argument as the key of a compiled program. If the argument changed in place,
    JAX would reuse the program of the old settings. So `hash`, which JAX calls, and `freeze`, which
    the functions of this package call, count as first use: afterwards an assignment at any depth is
    an error. `dataclasses.replace` makes a config with other settings, which can be changed again;
    so can a deep copy.

    Attributes:
      RENAMED: former names of settings, each with its present name. A stored config may use either;
        the error for a former name that is typed gives the present one.
    """

    RENAMED: ClassVar[dict[str, str]] = {}

    def __new__(cls, *args, **settings):
        for name in settings:
            if name not in cls.__dataclass_fields__:
                raise TypeError(cls._no_setting(name))
        return super().__new__(cls)

    @classmethod
    def _no_setting(cls, name: str) -> str:
        today = f' any more: it is {cls.RENAMED[name]!r} now' if name in cls.RENAMED else ''
        return f'{cls.__name__} has no setting {name!r}{today}'

    def freeze(self) -> Self:
        """Makes later assignments an error; returns the same object."""
        for value in vars(self).values():
            if isinstance(value, Settings):
                value.freeze()
        vars(self)['_is_frozen'] = True
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self).__name__
        if name not in self.__dataclass_fields__:
            raise AttributeError(self._no_setting(name))
        if '_is_frozen' in vars(self):
            raise dataclasses.FrozenInstanceError(
                f'{kind}.{name} cannot be set any more: this config was used, and compiled '
                f'functions keep it as it is; dataclasses.replace(config, ...) makes another'
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f'{type(self).__name__}.{name} cannot be deleted')

    def __post_init__(self):
        # Sections of one's own, or `dataclasses.replace` would share them with the original.
        for name, value in vars(self).items():
            if isinstance(value, Settings):
                vars(self)[name] = dataclasses.replace(value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash((type(self), *self.freeze().__getstate__().values()))


def described(section: Settings) -> dict[str, tuple[dataclasses.Field, Any]]:
    """The settings by dotted name, each with its field, which has its metadata, and its value."""
    flat = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if isinstance(value, Settings):
            flat |= {f'{field.name}.{name}': inner for name, inner in described(value).items()}
        else:
            flat[field.name] = field, value
    return flat


def renamed(section: Settings) -> dict[str, str]:
    """Former names of settings to present names, both dotted."""
    names = dict(section.RENAMED)
    for name, inner in vars(section).items():
        if isinstance(inner, Settings):
            pairs = renamed(inner).items()
            names |= {f'{name}.{before}': f'{name}.{today}' for before, today in pairs}
    return names


def flatten(section: Settings) -> dict[str, Any]:
    """The settings by dotted name: `{'langevin.num_steps': 20, ...}`."""
    return {name: value for name, (_, value) in described(section).items()}
