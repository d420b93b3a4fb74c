"""Scores of points of the plane: of an energy on a grid, of samples by counting."""

import numpy as np

from vaebm_jax.config import Config
from vaebm_jax.data.densities import Density
from vaebm_jax.data.sources import density_of
from vaebm_jax.evaluation import geometry
from vaebm_jax.evaluation.langevin_operator import Operator, after, chain_operator, stationary
from vaebm_jax.models.states import States

NUMBERS = ('log_partition', 'kl_', 'posterior_gap')  # Prefixes in `evaluation.json`.


_HISTOGRAM = 48  # Cells per side of [-3, 3]².


def geometry_of(states: States, config: Config, at_rest: bool = False) -> dict:
    """Divergences and the energy's mode weights; `states` have the parameters to use as `params`.

    Beside those of `geometry.divergences` there are divergences of the configured chains: from the
    data to refined samples, `kl_data_revised`; from these to the energy's density,
    `kl_revised_energy`; and with `at_rest`, which takes some seconds, from the chains' stationary
    density to the energy's, `kl_rest_energy`: the bias of the step size. An infinite divergence,
    such as any to the checkerboard, is None.
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


def refined_mass(
    states: States, config: Config, grid: geometry.Grid
) -> tuple[np.ndarray, Operator]:
    """The masses `[N]` of cells after the configured chains from the prior; and the operator."""
    z, mass = geometry.prior_cells()
    starts = geometry.decoded_at(states, z)
    first, operator = (
        chain_operator(points, geometry.gradient_at(states, config, points), config.langevin, grid)
        for points in (starts, grid.points)
    )
    return after(operator, first(mass), config.langevin.num_steps - 1), operator


def _chains(states, config, found, grid, at_rest):
    log_density = lambda mass: np.log(np.maximum(mass.astype(np.float64), 1e-300) / grid.cell)
    mass, operator = refined_mass(states, config, grid)
    refined = log_density(mass)
    numbers = {
        'kl_data_revised': geometry.kl(found.data, refined, grid.cell),
        'kl_revised_energy': geometry.kl(refined, found.energy, grid.cell),
    }
    if at_rest:
        rest = log_density(stationary(operator, np.exp(found.energy) * grid.cell))
        numbers['kl_rest_energy'] = geometry.kl(rest, found.energy, grid.cell)
    return numbers


def sample_weights(density: Density, points: np.ndarray) -> dict:
    """The share of `[N, 2]` points in each mode, divided by the true share."""
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
    """KL in nats from the data's histogram to that of `[N, 2]` points, by cells of 1/8 of [-3, 3]².

    One half is added to each count, so that none is 0 (R. Krichevsky, V. Trofimov, 1981). A finite
    number of data points also has a KL above 0.
    """
    fine = geometry.make_grid(3.0, 4 * _HISTOGRAM)
    mass = np.exp(density.log_density(fine.points)).reshape(_HISTOGRAM, 4, _HISTOGRAM, 4)
    mass = mass.sum(axis=(1, 3)) / mass.sum()
    edges = np.linspace(-3.0, 3.0, _HISTOGRAM + 1)
    counts = np.histogram2d(points[:, 1], points[:, 0], (edges, edges))[0] + 0.5
    has = mass > 0
    return float(np.sum(mass[has] * np.log(mass[has] / (counts / counts.sum())[has])))


def lines(result: dict) -> list[str]:
    """The grid's results, as lines for a terminal."""
    numbers = {name: value for name, value in result.items() if name.startswith(NUMBERS)}
    parts = [f'{name:20s}{"infinite" if v is None else f"{v:.4f}"}' for name, v in numbers.items()]
    energy = result['energy']
    spread = f'{energy["least"]:.3f} to {energy["most"]:.3f} of the truth'
    return [*parts, f'{"mode weights of p":20s}{spread}']
