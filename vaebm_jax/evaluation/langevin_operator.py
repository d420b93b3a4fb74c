"""The exact distribution of Langevin chains, on a grid of the plane.

A step of the chain moves a point along the drift and adds Gaussian noise: a linear map of
densities. T of them give the density of refined samples, and many more the stationary density.
"""

from collections.abc import Callable

import numpy as np

from vaebm_jax.config import LangevinConfig
from vaebm_jax.evaluation.geometry import Grid, gaussians
from vaebm_jax.samplers.langevin import langevin_step

_MOST_STEPS = 500

Operator = Callable[[np.ndarray], np.ndarray]


def chain_operator(
    points: np.ndarray, gradient: np.ndarray, config: LangevinConfig, grid: Grid
) -> Operator:
    """One step of the configured chain, from masses `[M]` at points to masses `[N]` of cells.

    `p'(x) = sum_m p_m N(x; x_m - (δ²/2) ∇U(x_m), δ² I)`, by one matrix product. Mass that leaves
    the grid is put at its edge.

    Args:
      points: before the step, `[M, 2]`: the grid's, or starting points.
      gradient: `∇U` there, `[M, 2]`.
      config: of the chain; its noise must be at least as wide as a cell.
      grid: of the points after the step.
    """
    width, noise = np.sqrt(grid.cell), config.step_size * config.noise_scale
    if noise < width:
        raise ValueError(f'step_size * noise_scale must be at least {width:.3g}, got {noise:.3g}')
    moved = langevin_step(
        points,
        gradient,
        0.0,
        step_size=config.step_size,
        max_drift=config.max_drift,
        max_element_drift=config.max_element_drift,
    )
    moved = np.clip(moved, grid.points[0], grid.points[-1])
    x, y = (part / part.sum(axis=1, keepdims=True) for part in gaussians(moved, noise, grid))
    x, y = x.astype(np.float32), y.astype(np.float32)
    return lambda mass: ((y * mass[:, np.newaxis].astype(np.float32)).T @ x).ravel()


def after(operator: Operator, mass: np.ndarray, num_steps: int) -> np.ndarray:
    """Masses `[N]` after `num_steps` steps of the chain."""
    for _ in range(num_steps):
        mass = operator(mass)
    return mass


def stationary(operator: Operator, mass: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """The chain's stationary distribution, iterated from masses `[N]` that should be near it.

    Stops when a step moves less than `tolerance` of the mass, or after 500 steps: enough to forget
    where in a mode a chain started, but not in which mode if modes are hard to leave.
    """
    for _ in range(_MOST_STEPS):
        last, mass = mass, operator(mass)
        if 0.5 * np.abs(mass - last).sum() < tolerance:
            break
    return mass
