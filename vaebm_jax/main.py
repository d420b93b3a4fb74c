"""The command line: python -m vaebm_jax.main --config=configs/digits.py --workdir=runs/digits

--config takes a file of configs/, a variant behind a colon (configs/mnist.py:paper), and
--config.FIELD=VALUE changes one of its settings. The same command on the same workdir goes on from
the newest checkpoint.

--mode=sample draws from a trained run, --mode=evaluate scores it, --mode=report makes a page of it,
--mode=likelihood brackets log Z, and so the likelihood of the test images,
--mode=recover --input=photo.png --mask=mask.png --output=recovered.png uses it on a photograph;
--mode=geometry measures a run on points of the plane (configs/toy2d.py) at each of its checkpoints.
They take the config from the workdir; --config.FIELD=VALUE changes what may differ, such as
langevin.num_steps or data.dir.

Exit status: 0 when the work is finished; 75 when a signal interrupted it and the same command goes
on with it; 1 after a mistake, which one line names.
"""

import os
import pathlib
import signal
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from vaebm_jax import saved_config
from vaebm_jax.checkpoints import load_config
from vaebm_jax.config import POINTS, Config, validate
from vaebm_jax.errors import UserError
from vaebm_jax.evaluate import evaluate
from vaebm_jax.evaluate_likelihood import evaluate_likelihood
from vaebm_jax.film import write_geometry
from vaebm_jax.interruption import Interrupted
from vaebm_jax.plane import evaluate_points, refuse_images, sample_points
from vaebm_jax.recovery import evaluate_recovery, recover_file, sample_recoveries
from vaebm_jax.report import write_report
from vaebm_jax.sample import sample
from vaebm_jax.train import train

_MODES = ('train', 'sample', 'evaluate', 'likelihood', 'recover', 'report', 'geometry')

_CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment: a file of configs/.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run, made where it is missing.')
_MODE = flags.DEFINE_enum('mode', 'train', _MODES, 'What to do.')
_PROFILE = flags.DEFINE_bool('profile', False, 'Write a trace of a few calls to WORKDIR/profile.')
_TENSORBOARD = flags.DEFINE_bool('tensorboard', False, 'Write the metrics as event files, too.')
_STEP = flags.DEFINE_integer('step', None, 'Which checkpoint; default: the newest.', lower_bound=1)
_EMA = flags.DEFINE_bool('ema', True, 'Draw with the averaged parameters.')
_NUM_SAMPLES = flags.DEFINE_integer(
    'num_samples',
    None,
    'Images to draw; default: 1000, evaluate: 10000, likelihood: 256; points: 50000.',
    lower_bound=20,
)
_NUM_TEMPERATURES = flags.DEFINE_integer(
    'num_temperatures', 1_000, 'Of an annealing of --mode=likelihood.', lower_bound=2
)
_LANGEVIN_STEPS = flags.DEFINE_integer(
    'langevin_steps', None, "Steps of the chain; default: the config's.", lower_bound=1
)
_INTERPOLATION = flags.DEFINE_enum(
    'interpolation', 'linear', ['linear', 'spherical'], 'The way between two draws of z.'
)
_WEIGHTS = flags.DEFINE_string(
    'inception_weights', None, 'Inception-v3, a file of tools/inception_weights.py.'
)
_REFERENCE_SPLIT = flags.DEFINE_enum(
    'reference_split', 'train', ['train', 'test'], 'The real images that samples are scored by.'
)
_NUM_REFERENCE = flags.DEFINE_integer(
    'num_reference', 10_000, 'How many of them, from the first on.', lower_bound=2
)
_RESUME = flags.DEFINE_enum(
    'resume',
    'newest_whole',
    ['newest_whole', 'strict'],
    'Where the newest checkpoint is damaged: go on from the one before, or refuse.',
)
_SPLIT = flags.DEFINE_enum(
    'split', 'test', ['train', 'val', 'test'], 'Conditional models: the images to recover.'
)
_NUM_RECOVERIES = flags.DEFINE_integer(
    'num_recoveries', None, 'Of an image; default: 16, of a photograph 1.', lower_bound=1
)
_INPUT = flags.DEFINE_string('input', None, 'The photograph of --mode=recover.')
_MASK = flags.DEFINE_string('mask', None, 'White where it is to be recovered, of its size.')
_OUTPUT = flags.DEFINE_string('output', None, 'The PNG that --mode=recover writes.')
flags.DEFINE_bool('debug', False, "Show the traceback of a user's mistake, too.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f'every setting is a flag, --name=value; got {" ".join(argv[1:])!r}')
    workdir = _WORKDIR.value
    if _MODE.value == 'train':
        config = read_config()
    if not workdir:
        raise UserError('--workdir must name the folder of the run, such as runs/digits')
    if not flags.FLAGS['verbosity'].present:
        # Orbax has thirty lines to say a checkpoint, and one more before it raises an error.
        logging.set_verbosity(logging.FATAL)
    cache = use_compilation_cache()
    if _MODE.value == 'train':
        train(
            config,
            workdir,
            profile=_PROFILE.value,
            tensorboard=_TENSORBOARD.value,
            strict=_RESUME.value == 'strict',
        )
        return
    if _MODE.value == 'report':
        print(write_report(workdir))
        return
    config = read_config()
    if _LANGEVIN_STEPS.value:
        config.langevin.num_steps = _LANGEVIN_STEPS.value
    validate(config)
    drawn_with = {'step': _STEP.value, 'ema': _EMA.value}
    if _MODE.value == 'likelihood':
        evaluate_likelihood(
            config,
            workdir,
            num_samples=_NUM_SAMPLES.value or 256,
            num_temperatures=_NUM_TEMPERATURES.value,
            **drawn_with,
        )
        return
    if _MODE.value == 'recover' or config.condition.kind != 'none':
        recovery(config, workdir, drawn_with)
        return
    if _MODE.value == 'geometry' or config.data.name in POINTS:
        plane(config, workdir, drawn_with)
        return
    if _MODE.value == 'sample':
        spherical = _INTERPOLATION.value == 'spherical'
        count = _NUM_SAMPLES.value or 1_000
        sample(config, workdir, num_samples=count, spherical=spherical, **drawn_with)
    else:
        evaluate(
            config,
            workdir,
            num_samples=_NUM_SAMPLES.value or 10_000,
            inception_weights=_WEIGHTS.value,
            reference_split=_REFERENCE_SPLIT.value,
            num_reference=_NUM_REFERENCE.value,
            cache=cache,
            **drawn_with,
        )


def recovery(config: Config, workdir: str, drawn_with: dict) -> None:
    """The modes of a conditional model."""
    if config.condition.kind == 'none':
        raise UserError('--mode=recover needs a run with a condition.kind, got none')
    if _MODE.value == 'recover':
        if not _INPUT.value or not _OUTPUT.value:
            raise UserError('--mode=recover needs --input=PHOTO and --output=FILE.png')
        recover_file(
            config,
            workdir,
            input_file=_INPUT.value,
            mask_file=_MASK.value,
            output_file=_OUTPUT.value,
            num_recoveries=_NUM_RECOVERIES.value or 1,
            **drawn_with,
        )
        return
    drawn_with |= {'split': _SPLIT.value, 'num_recoveries': _NUM_RECOVERIES.value or 16}
    if _MODE.value == 'sample':
        sample_recoveries(config, workdir, num_images=_NUM_SAMPLES.value or 20, **drawn_with)
    else:
        evaluate_recovery(
            config,
            workdir,
            num_images=_NUM_SAMPLES.value,
            inception_weights=_WEIGHTS.value,
            **drawn_with,
        )


def plane(config: Config, workdir: str, drawn_with: dict) -> None:
    """The modes of a model of points."""
    refuse_images(config)
    if _MODE.value == 'geometry':
        write_geometry(config, workdir, ema=_EMA.value)
    elif _MODE.value == 'sample':
        sample_points(config, workdir, num_samples=_NUM_SAMPLES.value or 50_000, **drawn_with)
    else:
        evaluate_points(config, workdir, num_samples=_NUM_SAMPLES.value or 50_000, **drawn_with)


def with_saved_config(argv: list[str]) -> list[str]:
    """The command line with the workdir's own config in place of --config, but to train."""
    parser = flags.FlagValues()
    flags.DEFINE_string('mode', 'train', '', flag_values=parser)
    flags.DEFINE_string('workdir', None, '', flag_values=parser)
    flags.DEFINE_string('config', None, '', flag_values=parser)
    parser.set_gnu_getopt()  # A value that stands apart, --step 5, does not end the flags.
    rest = parser(argv, known_only=True)
    if parser.mode == 'train' or not parser.workdir:
        return argv
    load_config(parser.workdir)  # A workdir without a run tells it here.
    saved = f'{pathlib.Path(saved_config.__file__)}:{parser.workdir}'
    own = [f'--mode={parser.mode}', f'--workdir={parser.workdir}', f'--config={saved}']
    return [rest[0], *own, *rest[1:]]


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


def use_compilation_cache() -> str:
    """Keeps compiled programs for later runs, where JAX_COMPILATION_CACHE_DIR does not say.

    Returns the folder for what can be computed again.
    """
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    cache = os.path.join(cache, 'vaebm_jax')
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update('jax_compilation_cache_dir', cache)
    return cache


def run() -> None:
    """Runs the command line; a user's mistake costs one line, not a traceback."""
    # As Ctrl-C does: what is drawn and scored in parts goes on where it was.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.argv = with_saved_config(sys.argv)
        app.run(main)
    except UserError as error:
        if '--debug' in sys.argv:
            raise
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)
    except (Interrupted, KeyboardInterrupt) as interruption:
        print(str(interruption) or 'interrupted: the same command goes on', file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)


if __name__ == '__main__':
    run()
