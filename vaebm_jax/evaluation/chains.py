"""How far chains have mixed, and how many independent points they are worth.

Both as Stan and ArviZ define them for the mean of a quantity, without ranks: A. Gelman et al.,
Bayesian Data Analysis, 3rd edition, 2013, sections 11.4 and 11.5; A. Vehtari et al.,
Rank-normalization, folding, and localization: an improved R-hat, 2021. In float64 on the host.
"""

import chex
import jax.numpy as jnp
import numpy as np

_LEAST_STEPS = 10  # Of a half at least five: two pairs of autocorrelations.


def effective_sample_size(chains: chex.Array) -> np.ndarray:
    """The number of independent points whose mean would be as precise as that of the chains.

    `N / τ` of all N points, where τ = 1 + 2 Σ ρ_t is the time in which the chains forget. The
    autocorrelations ρ_t are those of the half chains, with the variance between them. Their sum
    ends by Geyer's initial monotone sequence: where a pair ρ_2k + ρ_2k+1 is negative; no pair may
    be larger than one before it. (C. Geyer, Practical Markov chain Monte Carlo, 1992.)

    Args:
      chains: `[C, T, ...]` numbers: C chains, T steps of each, any further axes. The samplers'
        `info['energy']` has the steps first: give its transpose.

    Returns:
      `[...]` float64, at most N log10(N), which chains that alternate reach. NaN where all points
      are equal or one is not finite.

    Raises:
      ValueError: if there are fewer than two axes, no chains or fewer than 10 steps.
      TypeError: if they are not real numbers.
    """
    halves = _halves(chains)
    num_chains, num_steps = halves.shape[:2]
    within, total = _variances(halves)
    moved = halves - halves.mean(axis=1, keepdims=True)
    # Padded with as many zeros, so that the ends of a chain do not meet.
    spectrum = np.abs(np.fft.rfft(moved, 2 * num_steps, axis=1)) ** 2
    covariance = np.fft.irfft(spectrum, axis=1)[:, :num_steps].mean(axis=0) / num_steps
    with np.errstate(divide='ignore', invalid='ignore'):
        correlation = 1.0 - (within - covariance) / total
    correlation[0] = 1.0
    num_pairs = (num_steps - 1) // 2
    even, odd = correlation[: 2 * num_pairs : 2], correlation[1 : 2 * num_pairs : 2]
    pairs = even + odd
    is_over = pairs < 0.0
    is_over[-1] = True
    end = np.argmax(is_over, axis=0)
    is_in = np.arange(num_pairs).reshape(-1, *[1] * end.ndim) < end
    sums = np.sum(np.minimum.accumulate(pairs) * is_in, axis=0)
    last = np.take_along_axis(even, end[np.newaxis], axis=0)[0]
    time = -1.0 + 2.0 * sums + np.maximum(last, 0.0)
    count = num_chains * num_steps
    return np.where(total > 0.0, count / np.maximum(time, 1.0 / np.log10(count)), np.nan)[()]


def split_r_hat(chains: chex.Array) -> np.ndarray:
    """R-hat of the halves of chains: near 1, at most 1.01, if all of them have the same mean.

    The standard deviation of all points over that within half chains. Chains that are still on
    their way, or stay in different places, have a larger one.

    Args:
      chains: `[C, T, ...]`, as in `effective_sample_size`. A single chain is compared with itself.

    Returns:
      `[...]` float64. NaN where all points are equal or one is not finite; infinite where chains
      stand still in different places.

    Raises:
      ValueError, TypeError: as `effective_sample_size`.
    """
    within, total = _variances(_halves(chains))
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.sqrt(total / within)[()]


def _halves(chains):
    """`[2 C, T // 2, ...]` float64; of an odd number of steps the one in the middle is left out."""
    chains = np.asarray(chains)
    if not any(jnp.issubdtype(chains.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(f'chains must be an array of real numbers, got {chains.dtype}')
    if chains.ndim < 2 or chains.shape[0] == 0 or chains.shape[1] < _LEAST_STEPS:
        raise ValueError(
            f'chains must have axes [chains, steps, ...], with {_LEAST_STEPS} steps or more, got '
            f'shape {chains.shape}'
        )
    chains = chains.astype(np.float64)
    chains = np.where(np.isfinite(chains).all(axis=(0, 1)), chains, np.nan)
    chains -= chains[0, 0]  # So that equal points are exactly 0.
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]])


def _variances(halves):
    """Within chains, and of all points: `[...]` each."""
    num_steps = halves.shape[1]
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    between = halves.mean(axis=1).var(axis=0, ddof=1)
    return within, within * (num_steps - 1) / num_steps + between
