"""Lower and upper bounds of log Z of any energy, by annealed importance sampling.

R. Neal, Annealed importance sampling, 2001; both directions: R. Grosse, Z. Ghahramani, R. Adams,
Sandwiching the marginal likelihood using bidirectional Monte Carlo, 2015. Bounds of log Z give
bounds of log p(x) = -U(x) - log Z for any x.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax.samplers import arguments
from vaebm_jax.samplers.keys import chain_keys, check_one_key, fold_in, normal
from vaebm_jax.samplers.mala import Point, mala_sample, mala_step, point_at
from vaebm_jax.samplers.programs import EnergyFn, run_compiled

_TARGET = 0.6  # Acceptance rate, near the optimum for many dimensions, 0.574.
_PILOT_CHAINS = 64
_PILOT_TEMPERATURES = 200
_PILOT_MOVES = 5
_PILOT_ROUNDS = 3


class Gaussian(NamedTuple):
    """N(mean, std² I), the start of a path to the model.

    Attributes:
      mean: of a point's shape.
      std: one number, or of a point's shape.
    """

    mean: chex.Array
    std: chex.Array

    def energy(self, x: chex.Array) -> chex.Array:
        """Minus the log density, constants included, `[B]` nats."""
        squares = jnp.square(self._scaled(x)).reshape(x.shape[0], -1)
        log_z = jnp.sum(jnp.log(self._row(self.std)) + 0.5 * math.log(2.0 * math.pi))
        return 0.5 * jnp.sum(squares, axis=1) + log_z

    def gradient(self, x: chex.Array) -> chex.Array:
        """Of the energy, `[B, ...]`."""
        return self._scaled(x) / self._row(self.std)

    def sample(self, key: chex.PRNGKey, num_chains: int) -> chex.Array:
        """`[num_chains, ...]`; by one key, or by one a chain."""
        num_chains = arguments.whole_number('num_chains', num_chains, least=1)
        keys, dtype = chain_keys(key, num_chains), self.mean.dtype
        noise = normal(keys, self.mean.shape, dtype).astype(dtype)
        return self._row(self.mean) + self._row(self.std) * noise

    def _scaled(self, x):
        return (x - self._row(self.mean)) / self._row(self.std)

    def _row(self, value):
        return jnp.broadcast_to(jnp.asarray(value, self.mean.dtype), self.mean.shape)[jnp.newaxis]


def gaussian_of(x: chex.Array) -> Gaussian:
    """The Gaussian with the mean of points `[N, ...]` and their mean variance.

    Raises:
      TypeError: if these are not floating-point numbers.
      ValueError: if there are none.
    """
    x = arguments.points(x)
    mean = jnp.mean(x, axis=0)
    return Gaussian(mean, jnp.sqrt(jnp.mean(jnp.square(x - mean[jnp.newaxis]))))


class Schedule(NamedTuple):
    """A path of densities `p_β ∝ exp(-(1 - β) U₀ - β U)`, and the kernel's step size at each.

    Attributes:
      betas: `[K + 1]`, from 0 (the Gaussian) to 1 (the model), or back.
      step_sizes: `[K + 1]`, δ.
    """

    betas: chex.Array
    step_sizes: chex.Array

    def reversed(self) -> 'Schedule':
        """The same path from the model to the Gaussian."""
        return Schedule(self.betas[::-1], self.step_sizes[::-1])


class Annealed(NamedTuple):
    """The result of annealing along a schedule.

    Attributes:
      x: the last points of the chains, `[B, ...]`.
      log_weights: `[B]` nats; the mean of their exponentials estimates Z_end / Z_start.
      acceptance: the acceptance rate at each β but the first, `[K]`.
    """

    x: chex.Array
    log_weights: chex.Array
    acceptance: chex.Array


def annealed_importance_sampling(
    key: chex.PRNGKey,
    energy_fn: EnergyFn,
    base: Gaussian,
    schedule: Schedule,
    x: chex.Array,
    *,
    num_moves: int = 1,
) -> Annealed:
    """Anneals samples of a schedule's first density to its last, by a scan.

    At each β a chain's log weight grows by `(β_k - β_{k-1}) (U₀(x) - U(x))`; then the chain moves
    by Metropolis-adjusted Langevin steps that leave p_β invariant. The weights are exact for any
    schedule; the schedule decides their variance. With w the mean of `exp(log_weights)`:

    * Forward, from `base.sample`, E w = Z. So log w is below log Z on average, and by Markov's
      inequality exceeds it by b nats with a probability of at most exp(-b), for any energy.
    * Reverse, `schedule.reversed()` from samples of p, E w = 1 / Z: -log w is above log Z in the
      same sense, but only if these are samples of p. Chains that have not found the lowest energies
      give a number that is too small, and nothing in it shows this.

    The log weights are sums of many small numbers; the rounding errors of the additions are summed
    and added at the end. The rounding of U itself remains, `2⁻²⁴ |U|` in float32: 0.006 nats of
    1e5, 0.06 of 1e6, in each weight and each test. With float64 `x`, Gaussian and `energy_fn`
    (under `jax_enable_x64`) everything is float64.

    For β > 0 no chain goes to a point where U is not finite; at β = 0 only the Gaussian counts, for
    any U. Its samples where U is +inf have a log weight of -inf, which is right; where U is -inf or
    NaN, exp(-U) is not a density, and the log weight and the estimates are +inf or NaN.

    Args:
      key: one key, or `[B]`, one per chain.
      energy_fn: U, maps `[B, ...]` to energies `[B]` in nats, each row by itself.
      base: U₀, as minus its log density, so its Z is 1.
      schedule: the path, for example from `tune`.
      x: samples of the schedule's first density, `[B, ...]`.
      num_moves: steps at each β.

    Raises:
      TypeError: if an argument has another type than said here.
      ValueError: if an argument has another shape or range than said here.
    """
    x = arguments.points(x)
    num_moves = arguments.whole_number('num_moves', num_moves, least=1)
    _check_base(base, x.shape[1:])
    _check_schedule(schedule)
    keys = chain_keys(key, x.shape[0])
    return run_compiled(_anneal, energy_fn, x, keys, base, schedule, x, num_moves=num_moves)


def _check_base(base, shape=None):
    """`shape` is that of a point, if it is known."""
    if not isinstance(base, Gaussian):
        raise TypeError(f'base must be a Gaussian, got {type(base).__name__}')
    mean, std = base
    arguments.check_floats('mean of base', mean)
    if shape is not None and mean.shape != shape:
        raise ValueError(f'base must have a mean of shape {shape}, got {mean.shape}')
    if not isinstance(mean, jax.core.Tracer) and not np.all(np.isfinite(mean)):
        raise ValueError('mean of base must be finite, got an infinite one or NaN')
    arguments.check_positive(**{'std of base': std})
    if np.shape(std) not in ((), mean.shape):
        raise ValueError(
            f'std of base must be one number or of shape {mean.shape}, got shape {np.shape(std)}'
        )


def _check_schedule(schedule):
    if not isinstance(schedule, tuple) or len(schedule) != 2:
        raise TypeError(f'schedule must be a Schedule, got {type(schedule).__name__}')
    betas, step_sizes = (
        np.asarray(part) if isinstance(part, list | tuple) else part for part in schedule
    )
    if np.ndim(betas) != 1 or len(betas) < 2 or np.shape(step_sizes) != np.shape(betas):
        raise ValueError(
            'schedule must have as many step sizes as betas, two or more, got shapes '
            f'{np.shape(betas)} and {np.shape(step_sizes)}'
        )
    arguments.check_shares(**{'betas of schedule': betas})
    arguments.check_positive(**{'step sizes of schedule': step_sizes})


def _anneal(energy_fn, keys, base, schedule, x, *, num_moves):
    betas, step_sizes = (jnp.asarray(part, x.dtype) for part in schedule)

    def advance(carry, step):
        point, total, lost = carry
        index, change, beta, step_size = step
        total, rounded = _add(total, _times(change, base.energy(point.x) - point.energy))

        def move(point, number):
            move_keys = fold_in(keys, index * num_moves + number)
            return _move(move_keys, energy_fn, base, beta, point, step_size)

        point, accepted = jax.lax.scan(move, point, jnp.arange(num_moves))
        return (point, total, lost + rounded), jnp.mean(accepted)

    start = point_at(energy_fn, x)
    nothing = jnp.zeros_like(base.energy(x) - start.energy)
    steps = jnp.arange(len(betas) - 1), jnp.diff(betas), betas[1:], step_sizes[1:]
    (point, total, lost), acceptance = jax.lax.scan(advance, (start, nothing, nothing), steps)
    return jax.lax.stop_gradient(Annealed(point.x, total + lost, acceptance))


def _move(keys, energy_fn, base, beta, point, step_size):
    """One step that leaves p_β invariant, and its acceptance rate."""

    def view(point):
        x, energy, gradient = point
        return Point(
            x,
            _times(1.0 - beta, base.energy(x)) + _times(beta, energy),
            _times(1.0 - beta, base.gradient(x)) + _times(beta, gradient),
        )

    point, is_accepted = mala_step(keys, energy_fn, point, step_size, view)
    return point, jnp.mean(is_accepted, dtype=point.energy.dtype)


def _times(weight, value):
    """The product; 0 where the weight is 0, also for infinity and NaN."""
    return jnp.where(weight == 0.0, 0.0, weight * value)


def _add(total, increment):
    """The rounded sum, and its exact rounding error; 0 for an infinite one.

    D. Knuth, The art of computer programming 2, 4.2.2, theorem B.
    """
    new = total + increment
    part = new - total
    return new, jnp.where(jnp.isfinite(new), (total - (new - part)) + (increment - part), 0.0)


def tune(
    key: chex.PRNGKey, energy_fn: EnergyFn, base: Gaussian, *, num_temperatures: int = 1000
) -> Schedule:
    """Finds a schedule by pilot runs, whose chains are then discarded.

    (Weights of chains to which the kernels were adapted would not be exact.) At each β of a pilot
    run the step size is adapted to an acceptance rate of 0.6. The first run's βs follow a sigmoid,
    denser towards 0 and 1. The βs of the next runs are spaced by how much the moves at each β
    change U₀ - U, so that weights change evenly from one β to the next. The thermodynamic length
    uses the spread of U₀ - U over chains instead; it would put most of the schedule where chains
    are frozen in minima of different depth.

    Args:
      key: one key.
      energy_fn: U, maps `[B, ...]` to energies `[B]` in nats.
      base: U₀.
      num_temperatures: K.

    Raises:
      TypeError: if an argument has another type than said here.
      ValueError: if an argument has another shape or range than said here.
    """
    check_one_key(key)
    num_temperatures = arguments.whole_number('num_temperatures', num_temperatures, least=1)
    _check_base(base)
    x = jax.eval_shape(lambda key: base.sample(key, _PILOT_CHAINS), key)
    return run_compiled(_tune, energy_fn, x, key, base, num_temperatures=num_temperatures)


def _tune(energy_fn, key, base, *, num_temperatures):
    key_start, key_pilot = jax.random.split(key)
    x = base.sample(key_start, _PILOT_CHAINS)
    difference = base.energy(x) - point_at(energy_fn, x).energy
    spread = jnp.std(difference, where=jnp.isfinite(difference))
    reach = jnp.log(jnp.maximum(10.0 * spread, 100.0))
    betas = jax.nn.sigmoid(jnp.linspace(-reach, reach, _PILOT_TEMPERATURES + 1, dtype=x.dtype))
    betas = (betas - betas[0]) / (betas[-1] - betas[0])

    def improve(carry, number):
        betas, step_size = carry
        keys = chain_keys(jax.random.fold_in(key_pilot, number), _PILOT_CHAINS)
        step_sizes, changes = _pilot(keys, energy_fn, base, betas, step_size, x)
        return (_even(betas, changes), step_sizes[0]), (betas, step_sizes)

    start = betas, jnp.mean(base.std).astype(x.dtype)
    runs = jax.lax.scan(improve, start, jnp.arange(_PILOT_ROUNDS))[1]
    betas, step_sizes = (part[-1] for part in runs)
    places = jnp.linspace(0, _PILOT_TEMPERATURES, num_temperatures + 1, dtype=x.dtype)
    pilot_places = jnp.arange(_PILOT_TEMPERATURES + 1, dtype=x.dtype)
    log_step_sizes = jnp.interp(places, pilot_places, jnp.log(step_sizes))
    return jax.lax.stop_gradient(
        Schedule(jnp.interp(places, pilot_places, betas), jnp.exp(log_step_sizes))
    )


def _pilot(keys, energy_fn, base, betas, step_size, x):
    """Step sizes, and how much U₀ - U changes by the moves (median over chains), at each β."""

    def advance(carry, step):
        point, log_step_size = carry
        index, beta = step
        before = base.energy(point.x) - point.energy

        def move(carry, number):
            point, log_step_size = carry
            move_keys = fold_in(keys, index * _PILOT_MOVES + number)
            point, accepted = _move(move_keys, energy_fn, base, beta, point, jnp.exp(log_step_size))
            return (point, log_step_size + 0.5 * (accepted - _TARGET)), log_step_size

        carry, log_step_sizes = jax.lax.scan(move, carry, jnp.arange(_PILOT_MOVES))
        change = jnp.abs(base.energy(carry[0].x) - carry[0].energy - before)
        change = jnp.median(jnp.where(jnp.isfinite(change), change, 0.0))
        return carry, (jnp.exp(jnp.mean(log_step_sizes)), change)

    start = point_at(energy_fn, x), jnp.log(step_size)
    return jax.lax.scan(advance, start, (jnp.arange(len(betas)), betas))[1]


def _even(betas, changes):
    """The same number of βs, spaced evenly in the integral of `changes`."""
    changes = jnp.maximum(changes, 1e-6 * jnp.max(changes))
    parts = jnp.diff(betas) * jnp.sqrt(changes[1:] * changes[:-1])
    lengths = jnp.concatenate([jnp.zeros(1, parts.dtype), jnp.cumsum(parts)])
    return jnp.interp(
        jnp.linspace(0.0, lengths[-1], len(betas), dtype=lengths.dtype), lengths, betas
    )


class Estimate(NamedTuple):
    """An estimate of log Z.

    Attributes:
      log_z: nats.
      standard_error: nats, by the delta method: too small if few chains have most of the weight.
      effective_sample_size: of the weights; 1 to the number of chains.
    """

    log_z: float
    standard_error: float
    effective_sample_size: float


def log_mean_exp(log_weights: chex.Array) -> Estimate:
    """`log mean exp` of log weights `[B]`, in float64; -inf is a weight of 0."""
    log_weights = np.asarray(log_weights, np.float64)
    highest = log_weights.max()
    if not np.isfinite(highest):  # All weights are 0, or one is NaN or infinite.
        return Estimate(float(highest), math.nan, math.nan)
    weights = np.exp(log_weights - highest)
    relative_error = weights.std(ddof=1) / weights.mean() / math.sqrt(len(weights))
    size = weights.sum() ** 2 / np.square(weights).sum()
    return Estimate(float(highest + np.log(weights.mean())), float(relative_error), float(size))


class Bracket(NamedTuple):
    """log Z between two estimates.

    Attributes:
      forward: the stochastic lower bound.
      reverse: the stochastic upper bounds, by their starting points: `forward`, the last points of
        the forward chains, resampled by their weights; `samples`, the given ones.
      schedule: the path.
      acceptance: the lowest acceptance rate at any β, forward.
    """

    forward: Estimate
    reverse: dict[str, Estimate]
    schedule: Schedule
    acceptance: float

    @property
    def lower(self) -> float:
        """Nats."""
        return self.forward.log_z

    @property
    def upper(self) -> float:
        """The highest of all estimates, nats: an upper bound below the lower one is not valid.

        NaN if one of them is.
        """
        return float(np.max([self.lower, *(estimate.log_z for estimate in self.reverse.values())]))


def bracket_log_z(
    key: chex.PRNGKey,
    energy_fn: EnergyFn,
    base: Gaussian,
    samples: chex.Array | None = None,
    *,
    num_chains: int = 256,
    num_temperatures: int = 1000,
    num_moves: int = 1,
    chains_a_call: int = 64,
    track: Callable[[Iterable, str, int, int], Iterable] = lambda items, *_: items,
) -> Bracket:
    """Brackets log Z of an energy by annealed importance sampling in both directions.

    A pilot run finds the schedule, then chains are annealed from `base` to p. Their last points,
    resampled by their weights, and `samples`, both after another `num_temperatures`
    Metropolis-adjusted Langevin steps on U, are annealed back. Chain i uses `fold_in(key, i)`, for
    any number of chains per call.

    The lower bound holds for any energy. The upper one holds only if the reverse chains start from
    samples of p: not if few of the last points have most of the weight, or a mode of p is in
    neither set. An upper bound below the lower one shows this; one above it proves nothing.

    Args:
      key: one key.
      energy_fn: U, maps `[B, ...]` to energies `[B]` in nats, each row by itself.
      base: near the model: `gaussian_of` its samples, or of data.
      samples: of p, or near it, `[num_chains, ...]`; None: only the forward chains' last points.
      num_chains: in each direction.
      num_temperatures: K; the variance of a log weight falls as 1 / K.
      num_moves: steps at each β.
      chains_a_call: bounds the memory.
      track: shows progress: (items, description, total, size of an item) to the same items.

    Raises:
      TypeError: if an argument has another type than said here.
      ValueError: if an argument has another shape or range than said here.
    """
    check_one_key(key)
    num_chains = arguments.whole_number('num_chains', num_chains, least=1)
    chains_a_call = arguments.whole_number('chains_a_call', chains_a_call, least=1)
    _check_base(base)
    if samples is not None:
        samples = arguments.points(np.asarray(samples), 'samples')
        if samples.shape[1:] != base.mean.shape or len(samples) < num_chains:
            raise ValueError(
                f'samples must be {num_chains=} or more of shape {base.mean.shape}, got an array '
                f'of shape {samples.shape}'
            )
    key_tune, key_base, key_forward, key_draw, key_relax, key_reverse = jax.random.split(key, 6)
    keys_of = jax.vmap(jax.random.fold_in, (None, 0))
    schedule = tune(key_tune, energy_fn, base, num_temperatures=num_temperatures)

    def forward(chains):
        x = base.sample(keys_of(key_base, chains), len(chains))
        keys = keys_of(key_forward, chains)
        return annealed_importance_sampling(keys, energy_fn, base, schedule, x, num_moves=num_moves)

    def back(chains, x):
        x, _ = mala_sample(
            keys_of(key_relax, chains),
            energy_fn,
            x,
            num_steps=num_temperatures,
            step_size=schedule.step_sizes[-1],
        )
        keys = keys_of(key_reverse, chains)
        return annealed_importance_sampling(
            keys, energy_fn, base, schedule.reversed(), x, num_moves=num_moves
        )

    in_parts = functools.partial(_in_parts, num_chains, chains_a_call, track)
    there = in_parts('annealing forward', forward)
    starts = {'forward': there.x[_drawn_by(key_draw, there.log_weights)]}
    if samples is not None:
        starts['samples'] = np.asarray(samples)[:num_chains]
    reverse = {}
    for name, x in starts.items():
        came_back = in_parts(f'annealing back from {name}', back, x)
        inverse = log_mean_exp(came_back.log_weights)
        reverse[name] = inverse._replace(log_z=-inverse.log_z)
    return Bracket(
        log_mean_exp(there.log_weights), reverse, schedule, float(np.min(there.acceptance))
    )


def _in_parts(num_chains, size, track, doing, run, *arrays):
    """`run(chains, *rows)` of all chains, `size` at a time, to numpy."""
    size = min(size, num_chains)
    parts = []
    for first in track(range(0, num_chains, size), doing, num_chains, size):
        chains = np.minimum(np.arange(first, first + size), num_chains - 1)
        parts.append(jax.device_get(run(chains, *(array[chains] for array in arrays))))
    x, log_weights, acceptance = zip(*parts, strict=True)
    x, log_weights = (np.concatenate(part)[:num_chains] for part in (x, log_weights))
    return Annealed(x, log_weights, np.mean(acceptance, axis=0))


def _drawn_by(key, log_weights):
    """The same number of rows, resampled by their weights (systematic resampling)."""
    weights = np.exp(np.asarray(log_weights, np.float64) - np.max(log_weights))
    start = float(jax.random.uniform(key, dtype=jnp.float32))
    places = (np.arange(len(weights)) + start) / len(weights)
    rows = np.searchsorted(np.cumsum(weights) / weights.sum(), places)
    return np.minimum(rows, len(weights) - 1)


def bits_per_dimension(
    log_likelihood: chex.Numeric, num_dims: int, bin_width: float = 1.0
) -> chex.Numeric:
    """`-(log p(x) + D log Δ) / (D log 2)`: bits per dimension of x, quantized to bins of width Δ.

    The log density of an 8-bit image is per unit of x, in [-1, 1], not per step of its 256 values,
    so the width of a bin enters. For x with uniform noise over the bins the mean is an upper bound
    of the bits of the 8-bit image itself. (L. Theis, A. van den Oord, M. Bethge, A note on the
    evaluation of generative models, 2016.)

    Args:
      log_likelihood: of x, nats.
      num_dims: D.
      bin_width: Δ in units of x; 1: bits of the density as it is.
    """
    return -(log_likelihood / num_dims + math.log(bin_width)) / math.log(2.0)
