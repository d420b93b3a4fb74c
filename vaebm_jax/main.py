"""The command line: python -m vaebm_jax.main --config=configs/digits.py --workdir=runs/digits

--config takes a file of configs/, a variant behind a colon (configs/mnist.py:paper), and
--config.FIELD=VALUE changes one of its settings. The same command on the same workdir goes on from
the newest checkpoint. Exit status: 0 when the run is finished; 1 after a mistake, which one line
names.
"""

import os
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from vaebm_jax.config import Config
from vaebm_jax.errors import UserError
from vaebm_jax.train import train

_CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment: a file of configs/.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run, made where it is missing.')
flags.DEFINE_enum('mode', 'train', ['train'], 'What to do.')
_PROFILE = flags.DEFINE_bool('profile', False, 'Write a trace of a few calls to WORKDIR/profile.')
flags.DEFINE_bool('debug', False, "Show the traceback of a user's mistake, too.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f'every setting is a flag, --name=value; got {" ".join(argv[1:])!r}')
    config = read_config()
    if not _WORKDIR.value:
        raise UserError('--workdir must name the folder of the run, such as runs/digits')
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.WARNING)  # Orbax has thirty lines to say a checkpoint.
    use_compilation_cache()
    train(config, _WORKDIR.value, profile=_PROFILE.value)


def read_config() -> Config:
    """The config that --config and its overrides give."""
    try:
        config = _CONFIG.value
        getattr(config, 'name', None)  # A config that could not be loaded tells it here.
    except OSError as error:
        reason = ' '.join(str(error).split())
        raise UserError(f'--config must name a config file that can be read: {reason}') from error
    if config is None:
        raise UserError('--config must name a config file, such as configs/digits.py')
    return config


def use_compilation_cache() -> None:
    """Keeps compiled programs for later runs, where JAX_COMPILATION_CACHE_DIR does not say."""
    if not jax.config.jax_compilation_cache_dir:
        cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
        jax.config.update('jax_compilation_cache_dir', os.path.join(cache, 'vaebm_jax'))


def run() -> None:
    """Runs the command line; a user's mistake costs one line, not a traceback."""
    try:
        app.run(main)
    except UserError as error:
        if '--debug' in sys.argv:
            raise
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    run()
