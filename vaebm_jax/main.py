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

import dataclasses
import os
import signal
import sys
import traceback
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from vaebm_jax import command_line, distributed
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
    mode, workdir = _MODE.value, _WORKDIR.value
    config = command_line.checked(_CONFIG) if workdir or mode == 'train' else None
    if not workdir:
        raise UserError('--workdir must name the folder of the run, such as runs/digits')
    use_compilation_cache()
    if mode != 'report':  # Which computes nothing.
        distributed.initialize(
            _DISTRIBUTED.value, _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
        )
    if mode != 'train':
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # The runtime took it.
        if _LANGEVIN_STEPS.value:
            langevin = dataclasses.replace(config.langevin, num_steps=_LANGEVIN_STEPS.value)
            config = dataclasses.replace(config, langevin=langevin)
        validate(config)
    _RUN[mode](config, workdir)


def run_train(config: Config, workdir: str) -> None:
    train(
        config,
        workdir,
        profile=_PROFILE.value,
        tensorboard=_TENSORBOARD.value,
        strict=_RESUME.value == 'strict',
    )


def run_sample(config: Config, workdir: str) -> None:
    if config.condition.kind != 'none':
        refuse_processes()
        sample_recoveries(
            config,
            workdir,
            num_images=_NUM_SAMPLES.value or 20,
            split=_SPLIT.value,
            num_recoveries=_NUM_RECOVERIES.value or 16,
            **drawn_with(),
        )
    elif config.data.name in POINTS:
        refuse_processes()
        sample_points(config, workdir, num_samples=_NUM_SAMPLES.value or 50_000, **drawn_with())
    else:
        sample(
            config,
            workdir,
            num_samples=_NUM_SAMPLES.value or 1_000,
            spherical=_INTERPOLATION.value == 'spherical',
            **drawn_with(),
        )


def run_evaluate(config: Config, workdir: str) -> None:
    if config.condition.kind != 'none':
        refuse_processes()
        evaluate_recovery(
            config,
            workdir,
            num_images=_NUM_SAMPLES.value,
            inception_weights=_WEIGHTS.value,
            split=_SPLIT.value,
            num_recoveries=_NUM_RECOVERIES.value or 16,
            **drawn_with(),
        )
    elif config.data.name in POINTS:
        refuse_processes()
        evaluate_points(config, workdir, num_samples=_NUM_SAMPLES.value or 50_000, **drawn_with())
    else:
        evaluate(
            config,
            workdir,
            num_samples=_NUM_SAMPLES.value or 10_000,
            inception_weights=_WEIGHTS.value,
            reference_split=_REFERENCE_SPLIT.value,
            num_reference=_NUM_REFERENCE.value,
            cache=cache_folder(),
            **drawn_with(),
        )


def run_likelihood(config: Config, workdir: str) -> None:
    refuse_processes()
    evaluate_likelihood(
        config,
        workdir,
        num_samples=_NUM_SAMPLES.value or 256,
        num_temperatures=_NUM_TEMPERATURES.value,
        **drawn_with(),
    )


def run_recover(config: Config, workdir: str) -> None:
    if config.condition.kind == 'none':
        raise UserError('--mode=recover needs a run with a condition.kind, got none')
    refuse_processes()
    if not _INPUT.value or not _OUTPUT.value:
        raise UserError('--mode=recover needs --input=PHOTO and --output=FILE.png')
    recover_file(
        config,
        workdir,
        input_file=_INPUT.value,
        mask_file=_MASK.value,
        output_file=_OUTPUT.value,
        num_recoveries=_NUM_RECOVERIES.value or 1,
        **drawn_with(),
    )


def run_report(config: Config, workdir: str) -> None:
    del config  # The page tells the one that the run was started with.
    print(write_report(workdir))


def run_geometry(config: Config, workdir: str) -> None:
    refuse_images(config)
    refuse_processes()
    write_geometry(config, workdir, ema=_EMA.value)


_RUN = {
    'train': run_train,
    'sample': run_sample,
    'evaluate': run_evaluate,
    'likelihood': run_likelihood,
    'recover': run_recover,
    'report': run_report,
    'geometry': run_geometry,
}


def drawn_with() -> dict[str, Any]:
    """Which parameters a mode draws with."""
    return {'step': _STEP.value, 'ema': _EMA.value}


def refuse_processes() -> None:
    """Raises a UserError where several processes were started for the work of one."""
    if jax.process_count() > 1:
        raise UserError(
            f'--mode={_MODE.value} of such a model is the work of one process, got '
            f'{jax.process_count()}: start it once, with --distributed=off'
        )


def cache_folder() -> str:
    """For what can be computed again."""
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return os.path.join(cache, 'vaebm_jax')


def use_compilation_cache() -> None:
    """Keeps compiled programs for later runs, where JAX_COMPILATION_CACHE_DIR does not say."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update('jax_compilation_cache_dir', cache_folder())


def run() -> None:
    """Runs the command line; a user's mistake costs one line, not a traceback."""
    # As Ctrl-C does: what is drawn and scored in parts goes on where it was.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Orbax has thirty lines to say a checkpoint; --verbosity=0 shows them.
    logging.set_verbosity(logging.FATAL)
    try:
        sys.argv = command_line.with_saved_config(sys.argv, _MODES)
        app.run(main, flags_parser=command_line.parse_flags)
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
            print(f'{type(error).__name__}: {" ".join(str(error).split())}', file=sys.stderr)
        else:
            print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        distributed.leave(os.EX_TEMPFAIL if is_loss else 1, error)


if __name__ == '__main__':
    run()
