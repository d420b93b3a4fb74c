"""The command line: vaebm --config=digits --workdir=runs/digits, or python -m vaebm_jax.main.

--config takes a shipped config by its name or any config file by its path, with a variant after a
colon (mnist:paper, configs/mnist.py:paper), and --config.FIELD=VALUE changes one of its settings.
The same command on the same workdir resumes from the newest checkpoint; so does --workdir alone.
--help explains the modes and flags (vaebm_jax/cli/flags.py), and with --config the settings of that
file.

Modes other than train take the config from the workdir; --config.FIELD=VALUE changes what may
differ, such as langevin.num_steps or data.dir.

Exit status: 0 when the work is finished; 75 when a signal, or the end of another process,
interrupted it and the same command resumes it; 130 after Ctrl-C before the work began; 1 after an
error, which one line explains.
"""

import dataclasses
import errno
import os
import signal
import sys
import traceback

import jax
from absl import app, logging
from absl import flags as absl_flags

from vaebm_jax import __version__
from vaebm_jax.cli import config_file, flags
from vaebm_jax.cli.modes import RUN, cache_folder, print_result
from vaebm_jax.config import validate
from vaebm_jax.runtime import distributed, log, start
from vaebm_jax.runtime.atomic_files import check_writable
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.runtime.signals import Interrupted, end_as_ctrl_c

_CONFIG = flags.define()
GIVEN = absl_flags.FLAGS


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f'every setting is a flag, --name=value; got {" ".join(argv[1:])!r}')
    mode, workdir = GIVEN.mode, GIVEN.workdir
    flags.refuse_other_modes(mode)
    config = config_file.checked(_CONFIG) if workdir or mode == 'train' else None
    if not workdir:
        raise UserError('--workdir must name the folder of the run, such as runs/digits')
    if mode != 'train':
        config_file.refuse_other_config(config, workdir, flags.overridden())
    if GIVEN.langevin_steps:
        chain = dataclasses.replace(config.langevin, num_steps=GIVEN.langevin_steps)
        config = dataclasses.replace(config, langevin=chain)
    validate(config)
    flags.refuse_other_runs(mode, config)
    if mode != 'report':  # Which computes nothing.
        distributed.initialize(
            GIVEN.distributed, GIVEN.coordinator_address, GIVEN.num_processes, GIVEN.process_id
        )
        check_platform()
        use_compilation_cache()
    if mode != 'train':
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # The runtime took it.
    start.is_over()
    RUN[mode](config, workdir)


def check_platform() -> None:
    """Raises a UserError if JAX does not find the devices that it should use."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # The latter if cuda is not installed.
        asked = jax.config.jax_platforms or jax.config.jax_platform_name
        asked = f'JAX_PLATFORMS={asked}: ' if asked else ''
        reason = f' ({" ".join(str(error).split())[:200]})' if str(error) else ''
        raise UserError(
            f'{asked}JAX finds no such device here{reason}; without JAX_PLATFORMS it uses '
            'the available devices, and a GPU or TPU needs a JAX installed for it'
        ) from error


def use_compilation_cache() -> None:
    """Caches compiled programs for later runs, in JAX_COMPILATION_CACHE_DIR if it is set."""
    folder = jax.config.jax_compilation_cache_dir or cache_folder()
    try:
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, 'there is no home directory')
        if '://' not in folder:
            check_writable(folder)
    except OSError as error:
        log.say(
            f'compiled programs are not cached: {folder or "a folder"} cannot be written '
            f'({error.strerror})'
        )
        folder = None
    jax.config.update('jax_compilation_cache_dir', folder)


def print_help(asked: config_file.FirstLook) -> None:
    """Explains the flags or, with --config, the settings of that file."""
    if asked.config is None:
        print_result(flags.help_text())
        return
    sys.argv = [sys.argv[0], f'--config={asked.config}', *asked.rest]  # The flag library reads it.
    config_file.parse_flags(sys.argv)
    print_result(flags.settings_text(asked.config, config_file.checked(_CONFIG)))


def run() -> None:
    """Runs the command line; a user's mistake costs one line, not a traceback."""
    log.lose_what_cannot_be_written()
    end_as_ctrl_c()  # Sampling and scoring in parts resume from the cached parts.
    # Orbax logs thirty lines per checkpoint; --verbosity=0 shows them.
    logging.set_verbosity(logging.FATAL)
    try:
        sys.argv = config_file.with_config_path(sys.argv)
        asked = config_file.first_look(sys.argv, flags.MODES)
        if asked.version:
            print_result(f'vaebm_jax {__version__} (jax {jax.__version__})\n')
        elif asked.help:
            print_help(asked)
        else:
            sys.argv = config_file.with_saved_config(sys.argv, asked)
            app.run(main, flags_parser=config_file.parse_flags)
    except Interrupted as interruption:  # In all processes at once.
        print(interruption, file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except KeyboardInterrupt:
        print('interrupted: the same command resumes the work', file=sys.stderr)
        distributed.leave(os.EX_TEMPFAIL)
    except Exception as error:
        is_loss, is_users = (
            distributed.is_loss(error),
            isinstance(error, (UserError, absl_flags.Error)),
        )
        if '--debug' in sys.argv or not (is_loss or is_users):
            traceback.print_exc()
        elif is_loss:
            print(f'interrupted: {distributed.LOSS}', file=sys.stderr)
            print(f'{type(error).__name__}: {" ".join(str(error).split())}', file=sys.stderr)
        else:
            print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        distributed.leave(os.EX_TEMPFAIL if is_loss else 1, error)


if __name__ == '__main__':
    run()
