"""Known densities of the plane: data with which a learned energy can be compared.

Points are `[N, 2]`; as images of one pixel and two channels, `[N, 1, 1, 2]`, they are trained on by
the same step. Grids and pictures show [-3, 3]², where a density has its mass.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

_CENTRES_OF_A_CURVE = 1000
_BOARD = 4  # Squares a side of the checkerboard, each of side 1.


class Density(Protocol):
    """A density of the plane.

    Attributes:
      num_modes: the number of parts of `mode_of`, all of equal weight.
    """

    num_modes: int

    def draw(self, num_points: int, seed: int) -> np.ndarray:
        """`num_points` independent samples, `[N, 2]` float32."""

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """`log p(x)` in nats at points `[N, 2]`, `[N]` float64."""

    def mode_of(self, x: np.ndarray) -> np.ndarray:
        """The part that points `[N, 2]` belong to, `[N]`: 0 to `num_modes - 1`, or -1 for none."""


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """`1/K sum_k N(x; c_k, s² I)`: centres blurred by isotropic Gaussian noise.

    A curve has enough centres that the sum equals the integral to 1e-6 nats; samples come from the
    continuous curve.

    Attributes:
      centres: `c`, `[K, 2]`.
      std: `s`.
      num_modes: as in `Density`.
      draw_centres: `(rng, N) -> [N, 2]`, to which noise is added.
      nearest: `mode_of`.
    """

    centres: np.ndarray
    std: float
    num_modes: int
    draw_centres: Callable[[np.random.Generator, int], np.ndarray]
    nearest: Callable[[np.ndarray], np.ndarray]

    def draw(self, num_points: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        noise = self.std * rng.standard_normal((num_points, 2))
        return (self.draw_centres(rng, num_points) + noise).astype(np.float32)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        return _log_mixture(np.asarray(x, np.float64), self.centres, self.std)

    def mode_of(self, x: np.ndarray) -> np.ndarray:
        return self.nearest(np.asarray(x, np.float64))


class Checkerboard:
    """Uniform on the eight dark squares of the board [-2, 2]², 0 elsewhere.

    A mode is the dark square that a point is in.
    """

    num_modes = _BOARD**2 // 2

    def draw(self, num_points: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        rows, columns = rng.integers(0, _BOARD, num_points), rng.integers(0, 2, num_points)
        corners = np.stack([2 * columns + rows % 2, rows], axis=1)
        return (corners + rng.random((num_points, 2)) - _BOARD / 2).astype(np.float32)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        square = np.floor(np.asarray(x, np.float64) + _BOARD / 2)
        is_dark = np.all((square >= 0) & (square < _BOARD), axis=1) & (square.sum(axis=1) % 2 == 0)
        return np.where(is_dark, -np.log(self.num_modes), -np.inf)

    def mode_of(self, x: np.ndarray) -> np.ndarray:
        column, row = np.floor(np.asarray(x, np.float64) + _BOARD / 2).astype(int).T
        return np.where(np.isfinite(self.log_density(x)), 2 * row + column // 2, -1)


def _eight_gaussians() -> Mixture:
    """On a circle of radius 2, the first at (2, 0)."""
    centres = 2.0 * _circle(np.arange(8) / 8)
    draw_centres = lambda rng, count: centres[rng.integers(0, len(centres), count)]
    return Mixture(centres, 0.3, 8, draw_centres, _eighth)


def _ring() -> Mixture:
    """A circle of radius 1.5; a mode is an eighth of it, the first about (1.5, 0)."""
    centres = 1.5 * _circle(np.arange(_CENTRES_OF_A_CURVE) / _CENTRES_OF_A_CURVE)
    return Mixture(centres, 0.2, 8, lambda rng, count: 1.5 * _circle(rng.random(count)), _eighth)


def _two_moons() -> Mixture:
    """Two interleaving half circles of radius 1, about their common centre, scaled by 1.3.

    A mode is the more likely moon.
    """
    std = 1.3 * 0.15
    middle, corner = np.array([0.5, 0.25]), np.array([1.0, 0.5])
    upper = _circle((np.arange(_CENTRES_OF_A_CURVE) + 0.5) / (2 * _CENTRES_OF_A_CURVE))
    moons = [1.3 * (moon - middle) for moon in (upper, corner - upper)]

    def draw_centres(rng, count):
        upper = _circle(0.5 * rng.random(count))
        is_lower = rng.integers(0, 2, (count, 1))
        return 1.3 * (np.where(is_lower, corner - upper, upper) - middle)

    def likelier(x):
        return np.argmax([_log_mixture(x, moon, std) for moon in moons], axis=0)

    return Mixture(np.concatenate(moons), std, 2, draw_centres, likelier)


def _eighth(x):
    """The eighth of the plane, by angle; the first is about (1, 0)."""
    return np.round(np.arctan2(x[:, 1], x[:, 0]) / (2.0 * np.pi / 8)).astype(int) % 8


def _log_mixture(x, places, std):
    parts = []
    for rows in np.array_split(x, max(1, len(x) * len(places) // 10**7)):
        # |x - c|² by a product of matrices.
        squares = (rows**2).sum(1)[:, None] - 2.0 * rows @ places.T + (places**2).sum(1)
        exponents = -squares / (2.0 * std**2)
        highest = exponents.max(axis=1)
        total = np.exp(exponents - highest[:, None]).sum(axis=1)
        parts.append(highest + np.log(total))
    return np.concatenate(parts) - np.log(len(places) * 2.0 * np.pi * std**2)


def _circle(turns):
    """Points of the unit circle, `[N, 2]`."""
    angles = 2.0 * np.pi * turns
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


DENSITIES: dict[str, Density] = {
    'eight_gaussians': _eight_gaussians(),
    'ring': _ring(),
    'two_moons': _two_moons(),
    'checkerboard': Checkerboard(),
}
