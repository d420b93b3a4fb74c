"""Modes of a run whose data are points of the plane: what it draws, how far it is from truth."""

import os
from collections.abc import Callable

import jax
import numpy as np

from vaebm_jax import checkpoints, data, geometry, logs, pictures, plots
from vaebm_jax.apply import averaged
from vaebm_jax.base import States
from vaebm_jax.chain_law import Law, after, langevin_law, stationary
from vaebm_jax.config import Config
from vaebm_jax.densities import Density
from vaebm_jax.diagnostics import metropolis
from vaebm_jax.draws import Draws
from vaebm_jax.evaluate import samplers_of, table
from vaebm_jax.files import local_folder, whole_file, write_json
from vaebm_jax.keys import branch
from vaebm_jax.methods import METHODS, has_energy
from vaebm_jax.pictures import Picture
from vaebm_jax.sample import discard_others
from vaebm_jax.sampling import generate_by
from vaebm_jax.sources import density_of

NUMBERS = ('log_partition', 'kl_', 'posterior_gap')  # How they begin in `evaluation.json`.

PICTURES = {
    'points.png': Picture(
        'Points: the data, what the decoder draws', ', and the same after Langevin revision'
    ),
    'film.png': Picture(
        '',
        'The training: densities of energy and decoder, ancestral and revised samples',
        mode='geometry',
    ),
    'divergences.png': Picture(
        '', 'Divergences between the three families of joint densities', mode='geometry'
    ),
}

_SHOWN = 10_000
_HISTOGRAM = 48  # Cells a side of [-3, 3]².


def preview(config: Config) -> Callable[..., None]:
    """What draws points while a run trains, as `train.Preview`."""

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
    """Draws from a checkpoint: `points.png`, `ancestral.npz` and `refined.npz` in `samples`.

    Without `refined.npz` where the method has no energy.

    The arrays are `images`, `[N, 1, 1, 2]` float32, in the data's own units. Arguments and errors
    are those of `sample.sample`.
    """
    states, config = checkpoints.load(workdir, step, config)
    states = averaged(states) if ema else states
    folder = local_folder(workdir) / 'samples'
    logs.say_checkpoint('sample', int(states.step), workdir, config)
    samplers = METHODS[config.method].samplers
    draws = Draws(local_folder(workdir), states, config, num_samples, samplers)
    samples = gathered(draws)
    for name, points in samples.items():
        with whole_file(folder / f'{name}.npz') as file:
            np.savez(file, images=points)
    draw_points(folder / 'points.png', config, *samples.values())
    draws.discard()
    discard_others(folder, config)
    logs.say(f'finished: {folder}: points.png; {num_samples:,} points each in .npz files')


def draw_points(path: str | os.PathLike, config: Config, *drawn: np.ndarray) -> None:
    """Writes the data, the decoder's guesses and the same revised as clouds of as many points."""
    count = min(len(drawn[0]), _SHOWN)
    clouds = {'data': data.first_images(config.data, 'test', count)}
    for caption, points in zip(pictures.captions(config), drawn, strict=False):
        clouds[caption] = points[:count]
    plots.clouds(path, clouds)


def gathered(draws: Draws) -> dict[str, np.ndarray]:
    """All of the draws, `{sampler: [N, 1, 1, 2]}`."""
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
    """Holds a checkpoint to the density of its data.

    Args:
      config: of the run; `config.langevin` may differ from it.
      workdir: of the run; `evaluation.json` is written there.
      num_samples: by each sampler.
      step: which checkpoint; None: the newest.
      ema: with the averaged parameters.

    Returns:
      What `evaluation.json` holds: `kl_data_energy` and the other divergences of
      `geometry.divergences`; of the energy's density and of each sampler `mode_weights`, over the
      truth (1 is right), their `least` and `most`, and the share of points that are `off_modes`; of
      the samplers `kl_data_histogram`, beside that of as many points of the data. Of a method
      without an energy the ancestral sampler's alone.

    Raises:
      UserError: if there is no such checkpoint.
    """
    workdir = local_folder(workdir)
    states, config = checkpoints.load(workdir, step, config)
    states = averaged(states) if ema else states
    result = {'checkpoint_step': int(states.step), 'data': config.data.name, 'ema': ema}
    logs.say_checkpoint('evaluate', result['checkpoint_step'], workdir, config)
    told = []
    if has_energy(config):
        key = branch(jax.random.key(config.seed, impl=config.generator), 'diagnostics')
        result |= geometry_of(states, config, at_rest=True)
        result['acceptance'] = metropolis(key, states, config)
        told = lines(result)
    samplers = samplers_of(config)
    draws = Draws(workdir, states, config, num_samples, tuple(samplers))
    samples = gathered(draws)
    density = density_of(config.data)
    truth = density.draw(num_samples, seed=config.seed)
    floor = kl_histogram(density, truth)
    for name, lengths in samplers.items():
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
        for name in samplers
    }
    for line in (*told, *table(shown, samplers)):
        logs.say(line)
    logs.say(f'finished: {workdir / "evaluation.json"}')
    return result


def geometry_of(states: States, config: Config, at_rest: bool = False) -> dict:
    """Divergences and the energy's mode weights; `states` have the parameters to use as `params`.

    To those of `geometry.divergences` come some of the law of the config's chains: from the data to
    revised samples, `kl_data_revised`; from these to the energy's density, `kl_revised_energy`; and
    with `at_rest`, which takes some seconds, `kl_rest_energy`, to it from where chains come to
    rest: the bias of the step size. A divergence that is infinite, as any to the checkerboard is,
    is None.
    """
    grid = geometry.make_grid()
    found = geometry.densities(states, config, grid)
    density = density_of(config.data)
    modes = density.mode_of(grid.points)
    truth, weights = (
        geometry.mode_weights(log_p, modes, density.num_modes, grid.cell)
        for log_p in (found.data, found.energy)
    )
    off = float(np.exp(found.energy[modes < 0]).sum() * grid.cell)
    numbers = geometry.divergences(found, grid.cell)
    if config.langevin.step_size * config.langevin.noise_scale >= np.sqrt(grid.cell):
        numbers |= _chains(states, config, found, grid, at_rest)
    numbers = {name: value if np.isfinite(value) else None for name, value in numbers.items()}
    return numbers | {'energy': _weights(weights / truth, off)}


def revised_mass(states: States, config: Config, grid: geometry.Grid) -> tuple[np.ndarray, Law]:
    """The masses `[N]` of cells after the config's chains, from all of z; and a step's law."""
    z, mass = geometry.prior_cells()
    guesses = geometry.guess_at(states, z)
    first, law = (
        langevin_law(points, geometry.gradient_at(states, config, points), config.langevin, grid)
        for points in (guesses, grid.points)
    )
    return after(law, first(mass), config.langevin.num_steps - 1), law


def _chains(states, config, found, grid, at_rest):
    log_density = lambda mass: np.log(np.maximum(mass.astype(np.float64), 1e-300) / grid.cell)
    mass, law = revised_mass(states, config, grid)
    revised = log_density(mass)
    numbers = {
        'kl_data_revised': geometry.kl(found.data, revised, grid.cell),
        'kl_revised_energy': geometry.kl(revised, found.energy, grid.cell),
    }
    if at_rest:
        rest = log_density(stationary(law, np.exp(found.energy) * grid.cell))
        numbers['kl_rest_energy'] = geometry.kl(rest, found.energy, grid.cell)
    return numbers


def sample_weights(density: Density, points: np.ndarray) -> dict:
    """How many of `[N, 2]` points fall to each mode, over how many should."""
    modes = density.mode_of(points)
    counts = np.bincount(modes[modes >= 0], minlength=density.num_modes)
    return _weights(counts * len(counts) / max(1, counts.sum()), float(np.mean(modes < 0)))


def _weights(weights, off):
    return {
        'least': float(weights.min()),
        'most': float(weights.max()),
        'off_modes': off,
        'mode_weights': [round(float(weight), 4) for weight in weights],
    }


def kl_histogram(density: Density, points: np.ndarray) -> float:
    """KL in nats of the data's histogram to that of `[N, 2]` points, by cells of 1/8 of [-3, 3]².

    Each cell's count is raised by one half, so that none is 0 (R. Krichevsky, V. Trofimov, 1981).
    Finitely many points of the data themselves are some way off 0.
    """
    fine = geometry.make_grid(3.0, 4 * _HISTOGRAM)
    mass = np.exp(density.log_density(fine.points)).reshape(_HISTOGRAM, 4, _HISTOGRAM, 4)
    mass = mass.sum(axis=(1, 3)) / mass.sum()
    edges = np.linspace(-3.0, 3.0, _HISTOGRAM + 1)
    counts = np.histogram2d(points[:, 1], points[:, 0], (edges, edges))[0] + 0.5
    has = mass > 0
    return float(np.sum(mass[has] * np.log(mass[has] / (counts / counts.sum())[has])))


def lines(result: dict) -> list[str]:
    """What the grid tells, as lines for a terminal."""
    numbers = {name: value for name, value in result.items() if name.startswith(NUMBERS)}
    parts = [f'{name:20s}{"infinite" if v is None else f"{v:.4f}"}' for name, v in numbers.items()]
    energy = result['energy']
    spread = f'{energy["least"]:.3f} to {energy["most"]:.3f} of the truth'
    return [*parts, f'{"mode weights of p":20s}{spread}']
