"""The poster's information geometry: densities and divergences on a grid of the plane.

Three families of joint densities of a point x and a latent z share the inference model π(z|x):

    Π(z, x) = p_data(x) π(z|x)      P(z, x) = p_θ(x) π(z|x)      Q(z, x) = N(z; 0, I) q(x|z)

with p_θ = exp(-U) / Z and q(x|z) = N(x; g(z), s² I), s² = kl_weight / 2. Integrals over x are sums
over a grid, those over z quadratures, all in float64; divergences are in nats. A run's ancestral
samples are g(z) without noise, as in the poster; here, and in the VAE's ELBO, q(x|z) has noise.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax.config import Config
from vaebm_jax.data.sources import density_of
from vaebm_jax.models.apply import decode, energy_of
from vaebm_jax.models.states import States
from vaebm_jax.models.vae import rate

_HALF_WIDTH = 5.0
_CELLS = 120  # Per side: cells of 1/12, which align with the checkerboard's edges.
_PRIOR_CELLS, _PRIOR_HALF_WIDTH = 240, 4.5
_POSTERIOR_NODES = 6  # Per dimension.
_BATCH = 1440
_TINY = 1e-300

Decode = Callable[[chex.Array], chex.Array]
Encode = Callable[[chex.Array], tuple[chex.Array, chex.Array]]


class Grid(NamedTuple):
    """Cells of a square: their midpoints `[n², 2]` and the area of one.

    The midpoint rule is exact to rounding for functions that are smooth over a cell and vanish
    before the edge: for a Gaussian of standard deviation s the error is 2 exp(-2 π² s² / h²), 5e-9
    at s = h.
    """

    points: np.ndarray
    cell: float

    def image(self, values: np.ndarray) -> np.ndarray:
        """`[n²]` values as rows of y by columns of x."""
        side = round(np.sqrt(len(values)))
        return values.reshape(side, side)


def make_grid(half_width: float = _HALF_WIDTH, num_cells: int = _CELLS) -> Grid:
    """The square [-half_width, half_width]², `num_cells` per side."""
    width = 2.0 * half_width / num_cells
    axis = width * (np.arange(num_cells) + 0.5) - half_width
    y, x = np.meshgrid(axis, axis, indexing='ij')
    return Grid(np.stack([x.ravel(), y.ravel()], axis=1), width**2)


def log_partition(energy: np.ndarray, cell: float) -> float:
    """`log Z = log ∫ exp(-U(x)) dx` of energies `[N]` on a grid."""
    lowest = energy.min()
    return float(np.log(np.exp(lowest - energy).sum() * cell) - lowest)


def log_density(energy: np.ndarray, cell: float) -> np.ndarray:
    """`log p(x) = -U(x) - log Z`, `[N]`: a constant added to U changes nothing."""
    return -energy - log_partition(energy, cell)


def expectation(log_p: np.ndarray, values: np.ndarray, cell: float) -> float:
    """`E_p[values]`; where p is 0 a value is ignored, also if it is infinite."""
    p = np.exp(log_p)
    return float(np.sum(p[p > 0] * values[p > 0]) * cell)


def kl(log_p: np.ndarray, log_q: np.ndarray, cell: float) -> float:
    """`KL(p || q) = E_p[log p - log q]`; infinite if p has mass where q has none.

    It is also the divergence of joints that share the inference model: in `KL(Π || P)` the factor
    π(z|x) cancels, `E_Π[log p_data(x) π(z|x) - log p_θ(x) π(z|x)] = KL(p_data || p_θ)`, and
    likewise `KL(P || Π) = KL(p_θ || p_data)`.
    """
    with np.errstate(invalid='ignore'):  # -inf - -inf where both are 0, which is ignored.
        return expectation(log_p, log_p - log_q, cell)


def mode_weights(log_p: np.ndarray, modes: np.ndarray, num_modes: int, cell: float) -> np.ndarray:
    """The mass of each mode, `[num_modes]`, divided by that of all; -1 in `modes` is no mode."""
    mass = [np.exp(log_p[modes == mode]).sum() * cell for mode in range(num_modes)]
    return np.array(mass) / np.sum(mass)


def decoder_log_density(decode: Decode, std: float, grid: Grid) -> np.ndarray:
    """`log q(x) = log ∫ N(z; 0, I) N(x; g(z), std² I) dz` on the grid, `[N]`, for z of the plane.

    The integral over z is a sum over equal cells of [-4.5, 4.5]² with the prior's weights. Points
    of equal probability would leave out the tails, and so the decoder's bridges between modes. An
    isotropic Gaussian is a product over coordinates, so the sum for all x is one matrix product.
    Densities are at least 1e-300.

    Args:
      decode: g, `[B, 2] -> [B, 2]`.
      std: of the decoder's noise.
      grid: of x.
    """
    z, weights = prior_cells()
    x, y = gaussians(_by_parts(decode, z), std, grid)
    density = (y * weights[:, np.newaxis]).T @ x
    return np.log(np.maximum(density.ravel(), _TINY))


def prior_cells() -> tuple[np.ndarray, np.ndarray]:
    """Equal cells of the plane of z, `[M, 2]`, and the mass of N(0, I) in each, `[M]`."""
    z = make_grid(_PRIOR_HALF_WIDTH, _PRIOR_CELLS).points
    weights = np.exp(-0.5 * np.sum(z**2, axis=1))
    return z, weights / weights.sum()


def gaussians(means: np.ndarray, std: float, grid: Grid) -> np.ndarray:
    """The two factors of `N(x; m, std² I)` for all columns and rows of the grid, `[2, M, n]`."""
    axis = grid.points[: round(np.sqrt(len(grid.points))), 0]
    squares = ((axis - np.asarray(means, np.float64).T[:, :, np.newaxis]) / std) ** 2
    return np.exp(-0.5 * squares) / (np.sqrt(2.0 * np.pi) * std)


def elbo(decode: Decode, encode: Encode, std: float, x: chex.Array) -> chex.Array:
    """`ELBO(x) = E_π(z|x)[log q(x|z)] - KL(π(z|x) || N(0, I))` in nats, `[N]`, by quadrature.

    Gauss-Hermite quadrature with 6 nodes per dimension is exact if |x - g(z)|² is a polynomial of
    degree 11 in z.

    Args:
      decode: g, `[B, 2] -> [B, 2]`.
      encode: the mean and log standard deviation of π(z|x), `[B, 2] -> [B, 2], [B, 2]`.
      std: of the decoder's noise.
      x: points, `[N, 2]`.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_POSTERIOR_NODES)
    weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
    nodes = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(1, -1, 2)

    mean, log_std = encode(x)
    z = mean[:, None] + jnp.exp(log_std)[:, None] * nodes
    decoded = decode(z.reshape(-1, 2)).reshape(z.shape)
    distortion = jnp.sum(jnp.square(x[:, None] - decoded), axis=-1) @ weights
    return -distortion / (2.0 * std**2) - jnp.log(2.0 * jnp.pi * std**2) - rate(mean, log_std)


def joint_kl(log_p: np.ndarray, elbo: np.ndarray, cell: float) -> float:
    """`KL(P || Q)` for p = p_θ, or `KL(Π || Q)` for p = p_data.

    `E_p E_π[log p(x) + log π(z|x) - log q(z) - log q(x|z)]`: the terms with π are minus the ELBO,
    so it is `E_p[log p(x) - ELBO(x)]`. Since `ELBO = log q(x) - KL(π(z|x) || q(z|x))` it is also
    `KL(p || q) + posterior_gap`. The VAE minimizes it over α and β, up to the entropy of p, with
    refined samples as samples of p.
    """
    return expectation(log_p, log_p - elbo, cell)


def posterior_gap(log_p: np.ndarray, log_q: np.ndarray, elbo: np.ndarray, cell: float) -> float:
    """`E_p KL(π(z|x) || q(z|x)) = E_p[log q(x) - ELBO(x)]`, which must not be negative.

    The left side needs the true posterior of the decoder; the right side follows from
    `log q(x) = ELBO(x) + KL(π(z|x) || q(z|x))`. A negative value means that the quadrature over z
    is too coarse: a check of `decoder_log_density`.
    """
    return expectation(log_p, log_q - elbo, cell)


class Densities(NamedTuple):
    """On a grid, `[N]`: the log densities of data, energy and decoder, and the ELBO; log Z."""

    data: np.ndarray
    energy: np.ndarray
    decoder: np.ndarray
    elbo: np.ndarray
    log_partition: float


def densities(states: States, config: Config, grid: Grid) -> Densities:
    """The densities of a run's models on the grid; `states` have the parameters as `params`."""
    energy = _by_parts(lambda x: _energy(states, config, x), grid.points)
    return Densities(
        data=density_of(config.data).log_density(grid.points),
        energy=log_density(energy, grid.cell),
        decoder=decoder_log_density(lambda z: _decoded(states, z), decoder_std(config), grid),
        elbo=_by_parts(lambda x: _elbo(states, config, x), grid.points),
        log_partition=log_partition(energy, grid.cell),
    )


def decoder_std(config: Config) -> float:
    """s of q(x|z) = N(x; g(z), s² I)."""
    return float(np.sqrt(0.5 * config.vae.kl_weight))


def decoded_at(states: States, z: np.ndarray) -> np.ndarray:
    """The decoder's `g(z)`, `[M, 2]` for `[M, 2]`."""
    return _by_parts(lambda z: _decoded(states, z), z)


def gradient_at(states: States, config: Config, points: np.ndarray) -> np.ndarray:
    """`∇U` at points, `[M, 2]`."""
    return _by_parts(lambda x: _gradient(states, config, x), points)


@functools.partial(jax.jit, static_argnames='config')
def _gradient(states, config, x):
    return jax.grad(lambda x: jnp.sum(_energy(states, config, x)))(x)


@functools.partial(jax.jit, static_argnames='config')
def _energy(states, config, x):
    return energy_of(states.energy, config)(_as_images(x))


@jax.jit
def _decoded(states, z):
    return decode(states.decoder, z).reshape(-1, 2)


@functools.partial(jax.jit, static_argnames='config')
def _elbo(states, config, x):
    encode = lambda x: states.encoder.apply_fn({'params': states.encoder.params}, _as_images(x))
    return elbo(lambda z: _decoded(states, z), encode, decoder_std(config), x)


def _as_images(x):
    return x.reshape(-1, 1, 1, 2)


def _by_parts(function, x):
    """A function of rows, computed in batches: float64 results of float32 inputs."""
    x = np.asarray(x, np.float32)
    parts = [function(x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)]
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def divergences(found: Densities, cell: float) -> dict[str, float]:
    """The poster's divergences in nats, by name: `kl_<from>_<to>`."""
    data, energy, decoder, bound = found[:4]
    return {
        'log_partition': found.log_partition,
        'kl_data_energy': kl(data, energy, cell),
        'kl_energy_data': kl(energy, data, cell),
        'kl_energy_decoder': kl(energy, decoder, cell),
        'kl_data_decoder': kl(data, decoder, cell),
        'kl_p_q': joint_kl(energy, bound, cell),
        'kl_pi_q': joint_kl(data, bound, cell),
        'posterior_gap': posterior_gap(energy, decoder, bound, cell),
        'decoder_mass': float(np.exp(decoder).sum() * cell),
    }
