"""Tasks: runs on images, recoveries, or points of the plane, with the same functions each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vaebm_jax.config import Config
from vaebm_jax.data.densities import DENSITIES
from vaebm_jax.data.sources import density_of
from vaebm_jax.evaluation import scores
from vaebm_jax.figures.grids import Picture
from vaebm_jax.tasks import images, points, recovery
from vaebm_jax.training.loop import Preview


class Task(NamedTuple):
    """What the modes of the command line do for one kind of run.

    Attributes:
      preview: `preview(config)` makes the function that draws the pictures of a training run.
      sample, evaluate: `(config, workdir, **options)`, the modes, with the flags of
        `flags.options`.
      pictures: the pictures in `samples`, by file name.
      words: such runs in words, for refusing these modes to others.
      field: the setting that decides whether a run is one.
      modes: modes that no other task has.
      is_shared: whether several processes share the work of sample and evaluate.
    """

    preview: Preview
    sample: Callable[..., Any]
    evaluate: Callable[..., dict]
    pictures: Mapping[str, Picture]
    words: str
    field: str
    modes: tuple[str, ...] = ()
    is_shared: bool = False


TASKS = {
    'images': Task(
        images.preview,
        images.sample,
        scores.evaluate,
        images.PICTURES,
        words='of images without a condition',
        field='data.name',
        is_shared=True,
    ),
    'recovery': Task(
        recovery.preview,
        recovery.sample_recoveries,
        recovery.evaluate_recovery,
        recovery.PICTURES,
        words='with a condition.kind',
        field='condition.kind',
        modes=('recover',),
    ),
    'points': Task(
        points.preview,
        points.sample_points,
        points.evaluate_points,
        points.PICTURES,
        words=f'on points of the plane (data.name one of {", ".join(DENSITIES)})',
        field='data.name',
        modes=('geometry',),
    ),
}


def task_of(config: Config) -> Task:
    """The task of a run."""
    if config.condition.kind != 'none':
        return TASKS['recovery']
    return TASKS['points' if density_of(config.data) else 'images']
