"""The law of Langevin chains on a grid of the plane: no draws, all chains at once.

A step of the chain moves a point along the drift and adds Gaussian noise: a linear map of
densities. T of them give the density that revised samples have, and many more the stationary one.
"""

from collections.abc import Callable

import numpy as np

from vaebm_jax.config import LangevinConfig
from vaebm_jax.evaluation.geometry import Grid, gaussians
from vaebm_jax.samplers.langevin import langevin_step

_MOST_STEPS = 500

Law = Callable[[np.ndarray], np.ndarray]


def langevin_law(
    points: np.ndarray, gradient: np.ndarray, config: LangevinConfig, grid: Grid
) -> Law:
    """One step of the config's chain, from masses `[M]` at points to masses `[N]` of cells.

    `p'(x) = sum_m p_m N(x; x_m - (δ²/2) ∇U(x_m), δ² I)`, by one product of matrices. What leaves
    the grid stays at its edge.

    Args:
      points: where the chains may stand, `[M, 2]`: the grid's own, or others to begin with.
      gradient: `∇U` there, `[M, 2]`.
      config: of the chain; its noise must be of a cell's width or more.
      grid: where they may go.
    """
    width, noise = np.sqrt(grid.cell), config.step_size * config.noise_scale
    if noise < width:
        raise ValueError(f'step_size * noise_scale must be at least {width:.3g}, got {noise:.3g}')
    moved = langevin_step(
        points, gradient, 0.0, step_size=config.step_size, max_drift=config.max_drift
    )
    moved = np.clip(moved, grid.points[0], grid.points[-1])
    x, y = (part / part.sum(axis=1, keepdims=True) for part in gaussians(moved, noise, grid))
    x, y = x.astype(np.float32), y.astype(np.float32)
    return lambda mass: ((y * mass[:, np.newaxis].astype(np.float32)).T @ x).ravel()


def after(law: Law, mass: np.ndarray, num_steps: int) -> np.ndarray:
    """Masses `[N]` after so many steps of the chain."""
    for _ in range(num_steps):
        mass = law(mass)
    return mass


def stationary(law: Law, mass: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """Where the chain comes to rest, from masses `[N]` that are best near it.

    That is when a step moves less than `tolerance` of the mass, or after 500 steps: enough to
    forget where in a mode a chain began, but not which modes are hard to leave.
    """
    for _ in range(_MOST_STEPS):
        last, mass = mass, law(mass)
        if 0.5 * np.abs(mass - last).sum() < tolerance:
            break
    return mass
