"""Runs on points of the plane: previews, samples, and scores against the known density."""

import os
from collections.abc import Callable

import jax
import numpy as np

from vaebm_jax.config import Config
from vaebm_jax.data.loading import first_images
from vaebm_jax.data.sources import density_of
from vaebm_jax.evaluation.diagnostics import acceptance_line, metropolis
from vaebm_jax.evaluation.point_scores import geometry_of, kl_histogram, lines, sample_weights
from vaebm_jax.evaluation.sample_cache import Draws
from vaebm_jax.evaluation.scores import stages_of, table
from vaebm_jax.figures import grids, plots
from vaebm_jax.figures.grids import Picture
from vaebm_jax.methods import has_energy, has_models, sample_stages
from vaebm_jax.methods.generate import generate_by
from vaebm_jax.models.apply import averaged
from vaebm_jax.runtime import log
from vaebm_jax.runtime.atomic_files import local_folder, whole_file, write_json
from vaebm_jax.samplers.keys import branch
from vaebm_jax.tasks.images import discard_others
from vaebm_jax.training import checkpoints
from vaebm_jax.training.progress import say_checkpoint

PICTURES = {
    'points.png': Picture('Points: data, {stages}'),
    'film.png': Picture(
        '',
        'The training: densities of energy and decoder, ancestral and refined samples',
        mode='geometry',
        roles=('encoder', 'decoder'),
    ),
    'divergences.png': Picture(
        '',
        'Divergences between the three families of joint densities',
        mode='geometry',
        roles=('encoder', 'decoder'),
    ),
}

_SHOWN = 10_000


def preview(config: Config) -> Callable[..., None]:
    """The function that draws points during training, a `loop.Preview`."""

    def draw(path, keys, states):
        draw_points(path, config, *generate_by(keys, states, config, 4000))

    return draw


def sample_points(
    config: Config,
    workdir: str | os.PathLike,
    *,
    num_samples: int = 50_000,
    step: int | None = None,
    ema: bool = True,
) -> None:
    """Samples a checkpoint: `points.png`, `ancestral.npz` and `refined.npz` in `samples`.

    Without `refined.npz` if the method has no energy. The arrays are `images`, `[N, 1, 1, 2]`
    float32, in the units of the data. Arguments and errors are those of `images.sample`.
    """
    states, config = checkpoints.load(workdir, step, config)
    states = averaged(states) if ema else states
    folder = local_folder(workdir) / 'samples'
    say_checkpoint('sample', int(states.step), workdir, config)
    stages = tuple(sample_stages(config))
    draws = Draws(local_folder(workdir), states, config, num_samples, stages)
    samples = gathered(draws)
    for name, points in samples.items():
        with whole_file(folder / f'{name}.npz') as file:
            np.savez(file, images=points)
    draw_points(folder / 'points.png', config, *samples.values())
    draws.discard()
    discard_others(folder, config)
    log.say(f'finished: {folder}: points.png; {num_samples:,} points each in .npz files')


def draw_points(path: str | os.PathLike, config: Config, *drawn: np.ndarray) -> None:
    """Writes data, ancestral and refined samples as clouds of the same number of points."""
    count = min(len(drawn[0]), _SHOWN)
    clouds = {'data': first_images(config.data, 'test', count)}
    for caption, points in zip(grids.captions(config), drawn, strict=False):
        clouds[caption] = points[:count]
    plots.clouds(path, clouds)


def gathered(draws: Draws) -> dict[str, np.ndarray]:
    """All samples, `{stage: [N, 1, 1, 2]}`."""
    parts = list(draws)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def evaluate_points(
    config: Config,
    workdir: str | os.PathLike,
    *,
    num_samples: int = 50_000,
    step: int | None = None,
    ema: bool = True,
) -> dict:
    """Compares a checkpoint with the density of its data.

    Args:
      config: of the run; `config.langevin` may differ from it.
      workdir: of the run; `evaluation.json` is written there.
      num_samples: of each stage.
      step: of the checkpoint; None: the newest.
      ema: use the averaged parameters.

    Returns:
      The content of `evaluation.json`: `kl_data_energy` and the other divergences of
      `geometry.divergences`; for the energy's density and each stage `mode_weights`, divided by
      the true ones (1 is right), their `least` and `most`, and the share of points `off_modes`; for
      each stage `kl_data_histogram`, and the same for as many points of the data. For a method
      that lacks the energy, the encoder or the decoder only the stages'.

    Raises:
      UserError: if there is no such checkpoint.
    """
    workdir = local_folder(workdir)
    states, config = checkpoints.load(workdir, step, config)
    states = averaged(states) if ema else states
    result = {'checkpoint_step': int(states.step), 'data': config.data.name, 'ema': ema}
    say_checkpoint('evaluate', result['checkpoint_step'], workdir, config)
    report = []
    if has_energy(config):
        key = branch(jax.random.key(config.seed, impl=config.generator), 'diagnostics')
        if has_models(config, 'encoder', 'decoder'):
            result |= geometry_of(states, config, at_rest=True)
            report = lines(result)
        result['acceptance'] = metropolis(key, states, config)
        report.append(acceptance_line(result['acceptance']))
    stages = stages_of(config)
    draws = Draws(workdir, states, config, num_samples, tuple(stages))
    samples = gathered(draws)
    density = density_of(config.data)
    truth = density.draw(num_samples, seed=config.seed)
    floor = kl_histogram(density, truth)
    for name, lengths in stages.items():
        points = samples[name].reshape(-1, 2)
        result[name] = {
            'num_samples': num_samples,
            'langevin_steps': lengths * config.langevin.num_steps,
            'kl_data_histogram': kl_histogram(density, points),
            'kl_data_histogram_of_data': floor,
            **sample_weights(density, points),
        }
    write_json(workdir / 'evaluation.json', result)
    draws.discard()
    shown = {
        name: {key: value for key, value in result[name].items() if key != 'mode_weights'}
        for name in stages
    }
    for line in (*report, *table(shown, stages)):
        log.say(line)
    log.say(f'finished: {workdir / "evaluation.json"}')
    return result
