"""Reads the config file and its flags, and reports errors in them in one line."""

import difflib
import os
import pathlib
import re
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from absl import flags

from vaebm_jax.cli import saved_config
from vaebm_jax.config import KINDS, Config, flatten, renamed
from vaebm_jax.runtime.atomic_files import at_home, local_folder
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training import pretrained
from vaebm_jax.training.checkpoints import load_config

PRETRAINED_MODES = ('sample', 'recover')
_CONFIG_MODULE = 'config_config'  # ml_collections' module name for the file of a flag named config.
_HELP = {'help': '?', 'helpshort': 'h', 'helpfull': None}  # And their short names.
_NO_CONFIG = 'get_config() must return a vaebm_jax.config.Config'


class FirstLook(NamedTuple):
    """The flags that decide how the command line is parsed, and the other arguments."""

    mode: str
    workdir: str | None
    config: str | None
    pretrained: str | None
    version: bool
    help: bool
    rest: list[str]


def first_look(argv: Sequence[str], modes: Iterable[str]) -> FirstLook:
    """Reads only these flags, for any others."""
    parser = flags.FlagValues()
    flags.DEFINE_enum('mode', 'train', modes, '', flag_values=parser)
    flags.DEFINE_string('workdir', None, '', flag_values=parser)
    flags.DEFINE_string('config', None, '', flag_values=parser)
    flags.DEFINE_string('pretrained', None, '', flag_values=parser)
    flags.DEFINE_bool('version', False, '', flag_values=parser)
    for name, short in _HELP.items():
        flags.DEFINE_bool(name, False, '', short_name=short, flag_values=parser)
    parser.set_gnu_getopt()  # A separate value, as in --step 5, does not end the flags.
    rest = parser(argv, known_only=True)[1:]
    wants_help = any(parser[name].value for name in _HELP)
    names = parser.mode, parser.workdir, parser.config, parser.pretrained
    return FirstLook(*names, parser.version, wants_help, rest)


def shipped() -> dict[str, pathlib.Path]:
    """The config files of the package by name: in it where it is a wheel's, else beside it."""
    package = pathlib.Path(saved_config.__file__).parents[1]
    folder = package / 'configs'
    files = (folder if folder.is_dir() else package.parent / 'configs').glob('*.py')
    return {file.stem: file for file in sorted(files)}


def _must_be():
    return f'must name a config file, or one of those shipped ({", ".join(shipped())})'


def with_config_path(argv: Sequence[str]) -> list[str]:
    """The command line with --config as the flag library reads it: the path of a file.

    Raises:
      UserError: for a name that is neither a shipped config nor a file.
    """
    argv = list(argv)
    for index, argument in enumerate(argv):
        name, equals, value = argument.partition('=')
        if name not in ('-config', '--config'):
            continue
        if equals:
            argv[index] = f'{name}={config_path(value)}'
        elif argv[index + 1 :]:
            argv[index + 1] = config_path(argv[index + 1])
    return argv


def config_path(value: str) -> str:
    """The path of a config, with its variant: `mnist:paper` is shipped, `~` is the home."""
    file, colon, variant = value.partition(':')
    if file.startswith('~'):
        return f'{at_home(file)}{colon}{variant}'
    is_name = file and '/' not in file and not file.endswith('.py')
    name = pathlib.PurePath(file).stem
    if file and not is_name and not os.path.exists(file) and name in shipped():
        raise UserError(f'--config: there is no file {file}; --config={name} is the shipped config')
    if not is_name or os.path.isfile(file):
        return value
    if file not in shipped():
        raise UserError(f'--config {_must_be()}, got {value!r}')
    return f'{shipped()[file]}{colon}{variant}'


def with_saved_config(argv: Sequence[str], asked: FirstLook) -> list[str]:
    """The command line with the workdir's config if --config is not given.

    With --pretrained these models take the place of a run in a workdir.
    """
    chosen = [] if asked.pretrained is None else [f'--pretrained={asked.pretrained}']
    if asked.workdir and pretrained.name_of(asked.workdir):
        raise UserError(f'--workdir must name a folder, got {asked.workdir}; see --pretrained')
    if asked.pretrained is not None and asked.mode in PRETRAINED_MODES:
        if asked.workdir is not None or asked.config is not None:
            raise UserError('--pretrained takes the place of --workdir and --config: omit these')
        asked = asked._replace(workdir=pretrained.workdir_of(asked.pretrained))
    if not asked.workdir or (asked.mode == 'train' and asked.config is not None):
        return argv
    if asked.mode == 'train' and not (local_folder(asked.workdir) / 'config.json').exists():
        raise UserError(f'--config {_must_be()}: {asked.workdir} holds no run to resume')
    load_config(asked.workdir)  # Raises if the workdir has no run.
    if asked.config is not None:
        return argv
    saved = f'{pathlib.Path(saved_config.__file__)}:{asked.workdir}'
    first = [f'--mode={asked.mode}', f'--workdir={asked.workdir}', f'--config={saved}']
    return [argv[0], *first, *chosen, *asked.rest]


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
    for argument in argv[1:]:
        if intended := _settings_meant(argument, kinds):
            typed = argument.partition('=')[0]
            ways = ' or '.join(f'--config.{name}' for name in intended)
            raise UserError(f'there is no flag {typed}: settings are written {ways}')
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


def _settings_meant(argument: str, names: Iterable[str]) -> list[str]:
    """The settings that a flag that there is not may mean: one of its name, or ending with it."""
    flag = re.match(r'--?(?:no)?([a-z][\w.]*)(?==|$)', argument)
    if not flag or flag[1] in flags.FLAGS:
        return []
    return [flag[1]] if flag[1] in names else [n for n in names if n.endswith(f'.{flag[1]}')]


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
        raise UserError(f'--config {_must_be()}: {reason}') from error
    if config is None and not flags.FLAGS['config'].present:
        raise UserError(f'--config {_must_be()}, or --workdir a run to resume')
    if not isinstance(config, Config):
        raise UserError(f'--config: {_NO_CONFIG}')
    return config
