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

Several processes train together (vaebm_jax/distributed.py): --distributed=auto, the default, finds
TPU slices, SLURM and Kubernetes, --distributed=explicit takes --coordinator_address=HOST:PORT,
--num_processes and --process_id, --distributed=off stays alone.

Exit status: 0 when the work is finished; 75 when a signal, or the end of another process,
interrupted it and the same command goes on with it; 1 after a mistake, which one line names.
"""

import difflib
import os
import pathlib
import re
import signal
import sys
import traceback

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from vaebm_jax import distributed, saved_config
from vaebm_jax.checkpoints import load_config
from vaebm_jax.config import KINDS, POINTS, Config, flatten, validate
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

_CONFIG_MODULE = 'config_config'  # What ml_collections calls the file of a flag named config.
_NO_CONFIG = 'get_config() must return a vaebm_jax.config.Config'
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
_DISTRIBUTED = flags.DEFINE_enum(
    'distributed', 'auto', ['auto', 'off', 'explicit'], 'How the processes of a run are found.'
)
_COORDINATOR = flags.DEFINE_string('coordinator_address', None, 'HOST:PORT of process 0.')
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Of the run.', lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which this is.', lower_bound=0)
flags.DEFINE_bool('debug', False, "Show the traceback of a user's mistake, too.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f'every setting is a flag, --name=value; got {" ".join(argv[1:])!r}')
    workdir = _WORKDIR.value
    if _MODE.value == 'train':
        config = read_config()
    if not workdir:
        raise UserError('--workdir must name the folder of the run, such as runs/digits')
    cache = use_compilation_cache()
    if _MODE.value != 'report':  # Which computes nothing.
        distributed.initialize(
            _DISTRIBUTED.value, _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
        )
    if _MODE.value != 'train':
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # The runtime took it.
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
    if jax.process_count() > 1:
        raise UserError(
            f'--mode={_MODE.value} of a conditional model is the work of one process, got '
            f'{jax.process_count()}: start it once, with --distributed=off'
        )
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
    flags.DEFINE_enum('mode', 'train', _MODES, '', flag_values=parser)
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


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the flags and the config file.

    Raises:
      UserError: for a setting that there is not, or of the wrong kind, and for a config file that
        fails.
      flags.Error: for what is wrong with another flag.
    """
    kinds = {name: type(value) for name, value in flatten(Config()).items()}
    for argument in argv:
        name = re.match(r'--?(?:no)?config\.([^=]*)', argument)
        if name and name[1] not in kinds:
            near = difflib.get_close_matches(name[1], kinds, 1)
            hint = f', but {near[0]}' if near else ': vaebm_jax/config.py lists them'
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
    """What went wrong in the config file, and in which line; '' if the error is not its own."""
    while error.__context__ is not None:  # The flag libraries raise others in its place.
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


def read_config() -> Config:
    """The config that --config and its overrides give."""
    try:
        config = _CONFIG.value
        getattr(config, 'name', None)  # A config that could not be loaded tells it here.
    except OSError as error:
        reason = ' '.join(str(error.__cause__ or error).split())
        raise UserError(f'--config must name a config file that can be read: {reason}') from error
    if config is None and not flags.FLAGS['config'].present:
        raise UserError('--config must name a config file, such as configs/digits.py')
    if not isinstance(config, Config):
        raise UserError(f'--config: {_NO_CONFIG}')
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
    # Orbax has thirty lines to say a checkpoint; --verbosity=0 shows them.
    logging.set_verbosity(logging.FATAL)
    try:
        sys.argv = with_saved_config(sys.argv)
        app.run(main, flags_parser=parse_flags)
    except Interrupted as interruption:  # In all processes at once.
        print(interruption, file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except KeyboardInterrupt:
        print('interrupted: the same command goes on', file=sys.stderr)
        distributed.leave(os.EX_TEMPFAIL)
    except Exception as error:
        is_loss, is_users = distributed.is_loss(error), isinstance(error, (UserError, flags.Error))
        if '--debug' in sys.argv or not (is_loss or is_users):
            traceback.print_exc()
        elif is_loss:
            print(f'interrupted: {distributed.LOSS}', file=sys.stderr)
        else:
            print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        distributed.leave(os.EX_TEMPFAIL if is_loss else 1)


if __name__ == '__main__':
    run()
