"""--mode=geometry: the distributions of data, energy and decoder over a run's checkpoints."""

import json
import os
import pathlib

import jax
import numpy as np

from vaebm_jax.config import Config
from vaebm_jax.data.sources import density_of
from vaebm_jax.evaluation import geometry
from vaebm_jax.evaluation.point_scores import geometry_of
from vaebm_jax.figures import plots
from vaebm_jax.methods import create_states, refuse_without_energy
from vaebm_jax.methods.generate import generate
from vaebm_jax.models.apply import averaged
from vaebm_jax.models.states import States
from vaebm_jax.runtime import log
from vaebm_jax.runtime.atomic_files import local_folder, write_atomically
from vaebm_jax.training import checkpoints
from vaebm_jax.training.loop import run_keys

_FRAMES = 6
_POINTS = 4000
_CURVES = {
    'kl_data_energy': 'KL(Π || P) = KL(data || p)',
    'kl_data_revised': 'KL(data || refined samples)',
    'kl_p_q': 'KL(P || Q)',
    'kl_pi_q': 'KL(Π || Q)',
    'kl_energy_decoder': 'KL(p || q)',
    'posterior_gap': 'KL(P || Q) - KL(p || q)',
}


def write_geometry(config: Config, workdir: str | os.PathLike, *, ema: bool = True) -> list[dict]:
    """Measures and draws every checkpoint of a run on points.

    Writes to the workdir: `geometry.jsonl`, one row per checkpoint, by `point_scores.geometry_of`;
    `samples/divergences.png`, the same as curves; and `samples/film.png`: the densities of energy
    and decoder, ancestral and refined samples at some of the steps, beside the data.

    Args:
      config: of the run; `config.langevin` may differ from it.
      workdir: of the run.
      ema: use the averaged parameters.

    Returns:
      The rows. The first is of step 0, the untrained models.

    Raises:
      UserError: if there is no checkpoint, or the method lacks one of the three models.
    """
    refuse_without_energy('geometry', config, 'encoder', 'decoder')
    workdir = local_folder(workdir)
    with checkpoints.opened(workdir) as (_, saved):
        steps = [0, *saved]
    frames = {steps[index] for index in _spread(steps)}
    rows, film = [], []
    for step in log.tracked(steps, 'measuring', 'checkpoints', len(steps)):
        states = _states_at(step, config, workdir)
        states = averaged(states) if ema else states
        rows.append({'step': step} | geometry_of(states, config))
        if step in frames:
            film.append((step, *_frame(states, config)))
    content = ''.join(json.dumps(row) + '\n' for row in rows)
    write_atomically(workdir / 'geometry.jsonl', content.encode())
    draw_film(workdir / 'samples' / 'film.png', config, film)
    draw_curves(workdir / 'samples' / 'divergences.png', rows)
    log.say(
        f'finished: {workdir / "geometry.jsonl"}; film.png and divergences.png in '
        f'{workdir / "samples"}'
    )
    return rows


def _states_at(step: int, config: Config, workdir: pathlib.Path) -> States:
    if step:
        return checkpoints.load(workdir, step, config)[0]
    return create_states(run_keys(config, 0)[0], config)


def _spread(steps):
    """Indices of some steps, denser at the beginning, where most changes."""
    shares = np.linspace(0.0, 1.0, _FRAMES) ** 2
    return np.unique(np.round(shares * (len(steps) - 1)).astype(int))


def _frame(states, config):
    """A step's log densities on the grid and samples, `(energy, decoder, ancestral, refined)`."""
    found = geometry.densities(states, config, geometry.make_grid())
    key = jax.random.key(config.seed, impl=config.generator)
    return found.energy, found.decoder, *generate(key, states, config, _POINTS, ema=False)


def draw_film(path: str | os.PathLike, config: Config, film: list[tuple]) -> None:
    """Writes the film: one column per step, the data in the first."""
    grid = geometry.make_grid()
    density = density_of(config.data)
    truth, points = density.log_density(grid.points), density.draw(_POINTS, seed=config.seed)
    columns = [('data', truth, truth, points, points)]
    columns += [(f'step {step:,}', *parts) for step, *parts in film]
    names = ('energy: exp(-U) / Z', 'decoder: q(x)', 'ancestral samples', 'refined samples')
    highest = np.exp(truth.max())

    def draw(figure):
        for column, (title, *parts) in enumerate(columns):
            for row, part in enumerate(parts):
                axes = figure.add_subplot(4, len(columns), row * len(columns) + column + 1)
                plots.panel(axes, '' if row else title)
                if column == 1:
                    axes.set_ylabel(names[row])
                if row < 2:
                    plots.density(axes, grid, part, highest)
                else:
                    plots.cloud(axes, part)

    plots.write(path, 1.6 * len(columns), 6.7, draw)


def draw_curves(path: str | os.PathLike, rows: list[dict]) -> None:
    """Writes the divergences by training step."""
    steps = [row['step'] for row in rows]

    def draw(figure):
        axes = figure.add_subplot()
        for name, caption in _CURVES.items():
            values = [row.get(name) for row in rows]
            if None not in values:
                axes.plot(steps, values, marker='.', linewidth=1, label=caption)
        axes.set(xlabel='training step', ylabel='nats', yscale='log')
        axes.legend(frameon=False)

    plots.write(path, 7.0, 3.6, draw)
