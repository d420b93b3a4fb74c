"""What each mode of the command line does with the flags and the config."""

import os
import sys

import jax
from absl import flags as absl_flags

from vaebm_jax.cli import flags
from vaebm_jax.config import Config
from vaebm_jax.evaluation.likelihood import evaluate_likelihood
from vaebm_jax.figures.film import write_geometry
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import TASKS, task_of
from vaebm_jax.tasks.images import draw
from vaebm_jax.tasks.recovery import recover_file
from vaebm_jax.tasks.report import write_report
from vaebm_jax.training.loop import train

GIVEN = absl_flags.FLAGS


def run_train(config: Config, workdir: str) -> None:
    train(
        config,
        workdir,
        profile=GIVEN.profile,
        tensorboard=GIVEN.tensorboard,
        strict=GIVEN.resume == 'strict',
        preview=task_of(config).preview,
    )


def run_sample(config: Config, workdir: str) -> None:
    task = task_of(config)
    if GIVEN.output or GIVEN.pretrained:
        run_draw(config, workdir)
        return
    if not task.is_shared:
        refuse_processes()
    task.sample(config, workdir, **flags.options('sample', config))


def run_draw(config: Config, workdir: str) -> None:
    """Samples as one picture."""
    refuse_processes()
    if task_of(config) is not TASKS['images']:
        raise UserError(
            f'--output and --pretrained in --mode=sample are for runs {TASKS["images"].words}, '
            f'got data {config.data.name} with condition.kind {config.condition.kind}'
        )
    if not GIVEN.output:
        raise UserError('--pretrained in --mode=sample needs --output=FILE.png')
    draw(
        config,
        workdir,
        GIVEN.output,
        num_samples=GIVEN.num_samples or 64,
        step=GIVEN.step,
        ema=GIVEN.ema,
    )


def run_evaluate(config: Config, workdir: str) -> None:
    task, options = task_of(config), flags.options('evaluate', config)
    if not task.is_shared:
        refuse_processes()
    if 'num_reference' in options:
        options['cache'] = cache_folder()
    task.evaluate(config, workdir, **options)


def run_likelihood(config: Config, workdir: str) -> None:
    refuse_processes()
    evaluate_likelihood(config, workdir, **flags.options('likelihood', config))


def run_recover(config: Config, workdir: str) -> None:
    refuse_processes()
    if not GIVEN.input or not GIVEN.output:
        raise UserError('--mode=recover needs --input=PHOTO and --output=FILE.png')
    recover_file(
        config,
        workdir,
        input_file=GIVEN.input,
        mask_file=GIVEN.mask,
        output_file=GIVEN.output,
        num_recoveries=GIVEN.num_recoveries or 1,
        step=GIVEN.step,
        ema=GIVEN.ema,
    )


def run_report(config: Config, workdir: str) -> None:
    del config  # The page shows the config that the run was started with.
    print_result(f'{write_report(workdir)}\n')


def run_geometry(config: Config, workdir: str) -> None:
    refuse_processes()
    write_geometry(config, workdir, ema=GIVEN.ema)


RUN = {
    'train': run_train,
    'sample': run_sample,
    'evaluate': run_evaluate,
    'likelihood': run_likelihood,
    'recover': run_recover,
    'report': run_report,
    'geometry': run_geometry,
}


def refuse_processes() -> None:
    """Raises a UserError if several processes were started for the work of one."""
    if jax.process_count() > 1:
        raise UserError(
            f'--mode={GIVEN.mode} of such a model is the work of one process, got '
            f'{jax.process_count()}: start it once, with --distributed=off'
        )


def cache_folder() -> str | None:
    """The folder of cached results; None if there is no home directory."""
    cache = os.path.expanduser(os.environ.get('XDG_CACHE_HOME') or '~/.cache')
    return None if cache.startswith('~') else os.path.join(cache, 'vaebm_jax')


def print_result(text: str) -> None:
    """Writes to stdout; a closed pipe, as with `| head`, is not an error.

    Raises:
      UserError: if it cannot be written for another reason, such as a full disk.
    """
    try:
        print(text, end='', flush=True)
    except OSError as error:
        # The buffered rest would fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UserError(f'stdout cannot be written ({error.strerror})') from error
