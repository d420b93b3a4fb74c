"""Reads the config file and its flags, and reports errors in them in one line."""

import difflib
import pathlib
import re
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from absl import flags

from vaebm_jax.cli import saved_config
from vaebm_jax.config import KINDS, Config, flatten, renamed
from vaebm_jax.runtime.atomic_files import at_home
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training.checkpoints import load_config

_CONFIG_MODULE = 'config_config'  # ml_collections' module name for the file of a flag named config.
_HELP = {'help': '?', 'helpshort': 'h', 'helpfull': None}  # And their short names.
_NO_CONFIG = 'get_config() must return a vaebm_jax.config.Config'


class FirstLook(NamedTuple):
    """The flags that decide how the command line is parsed, and the other arguments."""

    mode: str
    workdir: str | None
    config: str | None
    version: bool
    help: bool
    rest: list[str]


def first_look(argv: Sequence[str], modes: Iterable[str]) -> FirstLook:
    """Reads only these flags, for any others."""
    parser = flags.FlagValues()
    flags.DEFINE_enum('mode', 'train', modes, '', flag_values=parser)
    flags.DEFINE_string('workdir', None, '', flag_values=parser)
    flags.DEFINE_string('config', None, '', flag_values=parser)
    flags.DEFINE_bool('version', False, '', flag_values=parser)
    for name, short in _HELP.items():
        flags.DEFINE_bool(name, False, '', short_name=short, flag_values=parser)
    parser.set_gnu_getopt()  # A separate value, as in --step 5, does not end the flags.
    rest = parser(argv, known_only=True)[1:]
    wants_help = any(parser[name].value for name in _HELP)
    return FirstLook(parser.mode, parser.workdir, parser.config, parser.version, wants_help, rest)


def with_home(argv: Sequence[str]) -> list[str]:
    """The command line with `~` in --config expanded, which the flag library would not do."""
    argv = list(argv)
    for index, argument in enumerate(argv):
        name, equals, value = argument.partition('=')
        if name.lstrip('-') != 'config' or not name.startswith('-'):
            continue
        if equals:
            argv[index] = f'{name}={at_home(value)}' if value.startswith('~') else argument
        elif argv[index + 1 :] and argv[index + 1].startswith('~'):
            argv[index + 1] = str(at_home(argv[index + 1]))
    return argv


def with_saved_config(argv: Sequence[str], asked: FirstLook) -> list[str]:
    """The command line with the workdir's config if --config is not given, except for train."""
    if asked.mode == 'train' or not asked.workdir:
        return argv
    load_config(asked.workdir)  # Raises if the workdir has no run.
    if asked.config is not None:
        return argv
    saved = f'{pathlib.Path(saved_config.__file__)}:{asked.workdir}'
    first = [f'--mode={asked.mode}', f'--workdir={asked.workdir}', f'--config={saved}']
    return [argv[0], *first, *asked.rest]


def refuse_other_config(config: Config, workdir: str, overridden: Sequence[str]) -> None:
    """Raises a UserError that names the settings in which --config differs from the workdir's.

    Args:
      config: of --config and its overrides.
      workdir: of a run.
      overridden: settings given on the command line; they may differ.
    """
    there, saved = flatten(config), flatten(load_config(workdir))
    differences = [
        f'{name} is {there[name]!r} there, {saved[name]!r} in the workdir'
        for name in saved
        if there[name] != saved[name] and name not in overridden
    ]
    if differences:
        raise UserError(
            f'--config must have the settings of {workdir}, or be left out: '
            + '; '.join(differences)
        )


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Reads the flags and the config file.

    Raises:
      UserError: for a setting that does not exist or has the wrong type, and for a config file that
        fails.
      flags.Error: for an error in another flag.
    """
    kinds = {name: type(value) for name, value in flatten(Config()).items()}
    today = renamed(Config())
    for argument in argv:
        name = re.match(r'--?(?:no)?config\.([^=]*)', argument)
        if name and name[1] in today:
            raise UserError(f'there is no setting {name[1]} any more: it is {today[name[1]]} now')
        if name and name[1] not in kinds:
            near = difflib.get_close_matches(name[1], kinds, 1)
            hint = f', but {near[0]}' if near else ': --help --config=FILE lists them'
            raise UserError(f'there is no setting {name[1]}{hint}')
    try:
        return flags.FLAGS(argv)
    except Exception as error:
        if fault := fault_of_config_file(error):
            raise UserError(f'--config: {fault}') from error
        if setting := re.match(r'flag --config\.([\w.]+)=(.*?): ', str(error), re.DOTALL):
            kind = KINDS[kinds[setting[1]]]
            raise UserError(f'{setting[1]} must be {kind}, got {setting[2]!r}') from error
        raise


def fault_of_config_file(error: BaseException) -> str:
    """The error in the config file, and its line; '' if the error is elsewhere."""
    while error.__context__ is not None:  # The flag libraries raise other errors from it.
        error = error.__context__
    if isinstance(error, UserError):
        return str(error)
    if getattr(error, 'name', None) == 'get_config':
        return 'the file must define get_config()'
    if isinstance(error, TypeError) and str(error).startswith('get_config() '):
        return f'the file has no variants, or needs one: {error}'
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals['__name__'] == _CONFIG_MODULE
    ]
    if isinstance(error, SyntaxError):
        places = [(error.filename, error.lineno)]
    if places:
        file, line = places[-1]
        said = error.msg if isinstance(error, SyntaxError) else error
        return f'{file}, line {line}: {type(error).__name__}: {" ".join(str(said).split())}'
    return _NO_CONFIG if isinstance(error, KeyError) else ''


def checked(flag: flags.FlagHolder) -> Config:
    """The config of --config and its overrides."""
    try:
        config: Any = flag.value
        getattr(config, 'name', None)  # Raises if the config could not be loaded.
    except OSError as error:
        reason = ' '.join(str(error.__cause__ or error).split())
        raise UserError(f'--config must name a config file that can be read: {reason}') from error
    if config is None and not flags.FLAGS['config'].present:
        raise UserError('--config must name a config file, such as configs/digits.py')
    if not isinstance(config, Config):
        raise UserError(f'--config: {_NO_CONFIG}')
    return config
