"""Points of the plane whose density is known: data sets that a learned energy can be held to.

Each set is a law: draws, and the log density of the same. Points are `[N, 2]`, in units of their
own; as images of one pixel and two channels, `[N, 1, 1, 2]`, they go through the same step.

Three of the sets are centres blurred by isotropic Gaussian noise, and so mixtures of Gaussians; a
curve's centres are as many points on it as make the sum an integral, to 1e-6 nats.
"""

import numpy as np

STD = {'eight_gaussians': 0.3, 'ring': 0.2, 'two_moons': 1.3 * 0.15}  # Of the noise.

_CENTRES_OF_A_CURVE = 1000
_BOARD = 4  # Squares a side of the checkerboard, each of side 1.


def centres(name: str) -> np.ndarray:
    """Where the noise is added, `[K, 2]`, each with weight 1/K.

    eight_gaussians: on a circle of radius 2, the first at (2, 0). ring: a circle of radius 1.5.
    two_moons: two half circles of radius 1 that reach into each other, about their common centre,
    times 1.3.
    """
    if name == 'eight_gaussians':
        return 2.0 * _circle(np.arange(8) / 8)
    if name == 'ring':
        return 1.5 * _circle(np.arange(_CENTRES_OF_A_CURVE) / _CENTRES_OF_A_CURVE)
    upper = _circle((np.arange(_CENTRES_OF_A_CURVE) + 0.5) / (2 * _CENTRES_OF_A_CURVE))
    lower = np.array([1.0, 0.5]) - upper
    return 1.3 * (np.concatenate([upper, lower]) - np.array([0.5, 0.25]))


def draw(name: str, num_points: int, seed: int) -> np.ndarray:
    """`num_points` independent draws, `[N, 2]` float32; of the curves, from everywhere on them."""
    rng = np.random.default_rng(seed)
    if name == 'checkerboard':
        rows, columns = rng.integers(0, _BOARD, num_points), rng.integers(0, 2, num_points)
        corners = np.stack([2 * columns + rows % 2, rows], axis=1)
        return (corners + rng.random((num_points, 2)) - _BOARD / 2).astype(np.float32)
    noise = STD[name] * rng.standard_normal((num_points, 2))
    if name == 'ring':
        return (1.5 * _circle(rng.random(num_points)) + noise).astype(np.float32)
    if name == 'two_moons':
        upper = _circle(0.5 * rng.random(num_points))
        is_lower = rng.integers(0, 2, (num_points, 1))
        moons = np.where(is_lower, np.array([1.0, 0.5]) - upper, upper) - np.array([0.5, 0.25])
        return (1.3 * moons + noise).astype(np.float32)
    places = centres(name)
    return (places[rng.integers(0, len(places), num_points)] + noise).astype(np.float32)


def log_density(name: str, x: np.ndarray) -> np.ndarray:
    """`log p(x)` in nats at points `[N, 2]`, `[N]` float64.

    Of a mixture `log(1/K sum_k N(x; c_k, s² I))`; of the checkerboard `-log 8` on the eight dark
    squares of the board [-2, 2]² and minus infinity elsewhere.
    """
    x = np.asarray(x, np.float64)
    if name == 'checkerboard':
        square = np.floor(x + _BOARD / 2)
        is_dark = np.all((square >= 0) & (square < _BOARD), axis=1) & (square.sum(axis=1) % 2 == 0)
        return np.where(is_dark, -np.log(_BOARD**2 / 2), -np.inf)
    return _log_mixture(x, centres(name), STD[name])


def num_modes(name: str) -> int:
    """How many parts `mode_of` cuts the set into, each of the same weight."""
    return 2 if name == 'two_moons' else 8


def mode_of(name: str, x: np.ndarray) -> np.ndarray:
    """Which part of the set a point belongs to, `[N]`: 0 to `num_modes(name) - 1`, or -1 for none.

    The nearest of the eight Gaussians; of the ring the nearest eighth, the first about (1.5, 0);
    the moon that is the likelier; the dark square that a point is in, -1 off them.
    """
    x = np.asarray(x, np.float64)
    if name == 'two_moons':
        halves = np.split(centres(name), 2)
        return np.argmax([_log_mixture(x, half, STD[name]) for half in halves], axis=0)
    if name == 'checkerboard':
        column, row = np.floor(x + _BOARD / 2).astype(int).T
        return np.where(np.isfinite(log_density(name, x)), 2 * row + column // 2, -1)
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
