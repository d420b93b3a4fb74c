"""log Z where closed forms and quadrature know it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import (
    Gaussian,
    annealed_importance_sampling,
    bits_per_dimension,
    bracket_log_z,
    gaussian_of,
    tune,
)
from vaebm_jax.samplers.ais import Annealed, Bracket, Estimate, Schedule, _in_parts, log_mean_exp

KEY = jax.random.key(0)


def gaussian_energy(x, std=0.3):
    return jnp.sum(jnp.square(x), axis=1) / (2.0 * std**2)


def mixture_energy(x):
    """Three Gaussians of standard deviation 0.5 and weights 0.2, 0.5 and 0.3, and 4 nats more."""
    centres = jnp.array([[1.5, 1.0], [-1.5, 0.5], [0.5, -1.5]])
    squares = jnp.sum(jnp.square(x[:, jnp.newaxis] - centres[jnp.newaxis]), axis=-1)
    log_weights = jnp.log(jnp.array([0.2, 0.5, 0.3]))[jnp.newaxis]
    return 4.0 - jax.nn.logsumexp(log_weights - squares / (2.0 * 0.5**2), axis=1)


@functools.partial(jax.jit, static_argnames=('back', 'num_chains'))
def between_gaussians(key, back, num_chains):
    """From N(0, 1) to N(0, 0.3²) in six dimensions, or back, from exact samples."""
    base = Gaussian(jnp.zeros(6), 1.0)
    betas = jnp.linspace(0.0, 1.0, 101) ** 3
    schedule = Schedule(betas, 0.9 / jnp.sqrt(1.0 - betas + betas / 0.3**2))
    key_start, key_chains = jax.random.split(key)
    x = base.sample(key_start, num_chains)
    if back:
        schedule, x = schedule.reversed(), 0.3 * x
    return annealed_importance_sampling(key_chains, gaussian_energy, base, schedule, x)


def test_between_gaussians_both_ways():
    """The base's Z is 1 and log(Z / (2π)^(D/2)) is D log(s₁ / s₀)."""
    log_ratio = 6 * math.log(0.3 / 1.0)
    for back, sign in ((False, 1.0), (True, -1.0)):
        result = between_gaussians(KEY, back, 2000)
        estimate = log_mean_exp(result.log_weights)
        log_z = sign * estimate.log_z - 3 * math.log(2.0 * math.pi)
        assert estimate.standard_error < 0.03
        assert abs(log_z - log_ratio) < 4.0 * estimate.standard_error
        # A single log weight is on average on its own side: Jensen's inequality.
        mean = sign * np.mean(result.log_weights) - 3 * math.log(2.0 * math.pi)
        assert sign * (log_ratio - mean) > 0.05
        assert result.acceptance.shape == (100,) and np.min(result.acceptance) > 0.5
        std = np.std(result.x)
        assert abs(std - (1.0 if back else 0.3)) < 0.1 * std


def test_the_weights_are_exact_on_a_bad_schedule():
    """Two temperatures and steps that hardly move: the mean weight is Z all the same."""
    base = Gaussian(jnp.zeros(1), 1.0)
    schedule = Schedule(jnp.array([0.0, 0.3, 1.0]), jnp.array([0.05, 0.05, 0.05]))
    energy = functools.partial(gaussian_energy, std=0.7)
    x = base.sample(KEY, 40_000)
    result = annealed_importance_sampling(jax.random.key(1), energy, base, schedule, x)
    weights = np.exp(np.asarray(result.log_weights, np.float64))
    z = 0.7 * math.sqrt(2.0 * math.pi)
    assert abs(weights.mean() - z) < 4.0 * weights.std() / math.sqrt(len(weights))
    assert weights.std() > 0.3 * z


def test_the_bracket_holds_a_mixtures_log_z():
    base = Gaussian(jnp.zeros(2), 1.5)
    bracket = bracket_log_z(KEY, mixture_energy, base, num_chains=1000, chains_a_call=1000)
    for estimate in (bracket.forward, bracket.reverse['forward']):
        assert estimate.standard_error < 0.02
        expected = math.log(2.0 * math.pi * 0.25) - 4.0
        assert abs(estimate.log_z - expected) < 4.0 * estimate.standard_error
    assert bracket.lower == bracket.forward.log_z
    assert bracket.upper == bracket.reverse['forward'].log_z
    assert bracket.acceptance > 0.3


def test_samples_that_are_none_of_p_are_told():
    """From the higher of two wells alone, the upper bound falls below the lower one."""
    energy = lambda x: 20.0 * jnp.square(jnp.square(x[:, 0]) - 1.0) + 1.5 * x[:, 0]
    base = Gaussian(jnp.zeros(1), 1.0)
    samples = jnp.full((500, 1), 1.0)
    bracket = bracket_log_z(KEY, energy, base, samples, num_chains=500, chains_a_call=500)
    x = np.linspace(-4.0, 4.0, 8001)
    values = np.asarray(energy(jnp.asarray(x[:, np.newaxis])), np.float64)
    expected = np.log(np.sum(np.exp(-values)) * 0.001)
    assert abs(bracket.lower - expected) < 4.0 * bracket.forward.standard_error < 0.3
    assert abs(bracket.upper - expected) < 0.3
    assert bracket.upper == max(bracket.lower, bracket.reverse['forward'].log_z)
    assert bracket.reverse['samples'].log_z < bracket.lower - 1.0


def test_a_constant_in_the_energy_changes_log_z_and_no_likelihood():
    base, x = Gaussian(jnp.zeros(6), 1.0), jnp.full((3, 6), 0.2)
    schedule = Schedule(jnp.linspace(0.0, 1.0, 51), jnp.full(51, 0.2))

    @jax.jit
    def log_weights(constant):
        energy = lambda x: gaussian_energy(x) + constant
        start = base.sample(KEY, 500)
        return annealed_importance_sampling(KEY, energy, base, schedule, start).log_weights

    log_z, log_z_shifted = (log_mean_exp(log_weights(constant)).log_z for constant in (0.0, 8.0))
    assert log_z_shifted == pytest.approx(log_z - 8.0, abs=1e-3)
    log_p = -gaussian_energy(x) - log_z
    np.testing.assert_allclose(-(gaussian_energy(x) + 8.0) - log_z_shifted, log_p, atol=1e-3)


@pytest.mark.parametrize('elsewhere', [np.inf, -np.inf, np.nan])
def test_no_chain_goes_where_the_energy_is_not_finite(elsewhere):
    """A Gaussian cut off at -1 and 1, from one that lies within: log Z is log (2π)^½ erf(½^½)."""
    energy = lambda x: jnp.sum(jnp.where(jnp.abs(x) < 1.0, 0.5 * x**2, elsewhere), axis=1)
    base = Gaussian(jnp.zeros(1), 0.15)
    schedule = Schedule(jnp.linspace(0.0, 1.0, 101), jnp.full(101, 0.6))
    x = base.sample(KEY, 4000)
    result = annealed_importance_sampling(jax.random.key(1), energy, base, schedule, x)
    assert np.max(np.abs(result.x)) < 1.0
    estimate = log_mean_exp(result.log_weights)
    expected = math.log(math.sqrt(2.0 * math.pi) * math.erf(0.5**0.5))
    assert estimate.standard_error < 0.05
    assert abs(estimate.log_z - expected) < 4.0 * estimate.standard_error


def test_samples_of_no_density_have_no_weight():
    """Half of a Gaussian, from the whole: Z is half as much, and half of the weights are 0."""
    energy = lambda x: jnp.sum(jnp.where(x > 0.0, 0.5 * x**2, jnp.inf), axis=1)
    base = Gaussian(jnp.zeros(1), 1.0)
    bracket = bracket_log_z(
        KEY, energy, base, num_chains=2000, num_temperatures=100, chains_a_call=2000
    )
    expected = math.log(0.5 * math.sqrt(2.0 * math.pi))
    assert abs(bracket.lower - expected) < 4.0 * bracket.forward.standard_error < 0.1
    assert bracket.forward.effective_sample_size == pytest.approx(1000, rel=0.1)
    # Back, no chain finds the other half of the Gaussian: an upper bound, too high by log 2.
    assert bracket.upper == pytest.approx(expected + math.log(2.0), abs=0.02)


@pytest.mark.parametrize('elsewhere', [np.inf, -np.inf, np.nan])
def test_without_a_weight_the_energy_does_not_count(elsewhere):
    """At β = 0 chains go to all of the Gaussian: 0 times infinity is 0 there."""
    energy = lambda x: jnp.sum(jnp.where(x > 0.0, 0.5 * x**2, elsewhere), axis=1)
    base = Gaussian(jnp.zeros(1), 1.0)
    x = jnp.abs(base.sample(KEY, 10_000))
    schedule = Schedule(jnp.concatenate([jnp.ones(1), jnp.zeros(60)]), jnp.ones(61))
    result = annealed_importance_sampling(KEY, energy, base, schedule, x)
    np.testing.assert_allclose(result.log_weights, -0.5 * math.log(2.0 * math.pi), atol=1e-5)
    assert abs(np.mean(result.x)) < 0.05 and np.std(result.x) == pytest.approx(1.0, abs=0.04)


def test_an_estimate_that_is_no_number_is_not_hidden():
    nan, one = Estimate(math.nan, 0.1, 9.0), Estimate(1.0, 0.1, 9.0)
    for estimates in ((one, one, nan), (one, nan, one), (nan, one, one)):
        forward, *back = estimates
        bracket = Bracket(forward, dict(zip('ab', back, strict=True)), None, 0.5)
        assert math.isnan(bracket.upper)
    weights = np.array([-np.inf, 0.0])
    assert log_mean_exp(weights)[::2] == pytest.approx((-math.log(2.0), 1.0))
    assert log_mean_exp(weights[:1]).log_z == -np.inf
    assert math.isnan(log_mean_exp(np.array([np.nan, 0.0])).log_z)


def test_what_rounding_takes_from_a_sum_is_not_lost():
    """Increments of 100 nats to a sum of 123,456.7, a thousand times: plain sums lose 0.1."""
    base = Gaussian(jnp.zeros(2), 1.0)
    energy = lambda x: base.energy(x) + 123_456.7
    schedule = Schedule(jnp.linspace(0.0, 1.0, 1001), jnp.full(1001, 1.0))
    result = annealed_importance_sampling(KEY, energy, base, schedule, base.sample(KEY, 8))
    np.testing.assert_allclose(result.log_weights, -123_456.7, atol=0.02)
    plain = np.cumsum(np.diff(np.asarray(schedule.betas)) * np.float32(-123_456.7))[-1]
    assert abs(plain + 123_456.7) > 0.05


def test_a_schedule_from_a_base_a_hundred_times_as_wide_in_float64():
    with jax.enable_x64(True):
        base = Gaussian(jnp.zeros(6, jnp.float64), 1.0)
        energy = functools.partial(gaussian_energy, std=0.01)
        key = jax.random.key(0)
        schedule = tune(key, energy, base, num_temperatures=500)
        result = annealed_importance_sampling(key, energy, base, schedule, base.sample(key, 500))
        estimate = log_mean_exp(result.log_weights)
    betas, step_sizes = np.asarray(schedule.betas), np.asarray(schedule.step_sizes)
    assert betas.dtype == step_sizes.dtype == result.x.dtype == np.float64
    assert result.log_weights.dtype == np.float64
    assert betas.shape == step_sizes.shape == (501,)
    assert betas[0] == 0.0 and betas[-1] == 1.0 and np.all(np.diff(betas) > 0.0)
    # Steps are as long as the Gaussian between the two is wide: (1 - β + β / s²)^-½.
    ratio = (step_sizes * np.sqrt(1.0 - betas + betas / 0.01**2))[50:]
    assert np.max(ratio) < 2.5 * np.min(ratio) and 0.5 < np.median(ratio) < 2.5
    expected = 6 * math.log(0.01 * math.sqrt(2.0 * math.pi))
    assert estimate.standard_error < 0.1
    assert abs(estimate.log_z - expected) < 4.0 * estimate.standard_error


def test_all_chains_go_in_parts_of_one_size():
    sizes = []

    def run(chains, x):
        sizes.append(len(chains))
        return Annealed(x + 0.5, 10.0 * chains, np.array([chains[0] / 4.0]))

    told = []

    def track(items, *about):
        told.append(about)
        return items

    x = np.arange(10.0)[:, np.newaxis]
    result = _in_parts(10, 4, track, 'going', run, x)
    assert sizes == [4, 4, 4] and told == [('going', 10, 4)]
    np.testing.assert_array_equal(result.x, x + 0.5)
    np.testing.assert_array_equal(result.log_weights, 10.0 * np.arange(10))
    assert result.acceptance == pytest.approx([1.0])


def test_log_mean_exp_and_its_error():
    rng = np.random.default_rng(0)
    draws = rng.normal(1000.0, 0.1, (400, 200))  # log E exp = 1000 + 0.1² / 2.
    estimates = [log_mean_exp(row) for row in draws]
    values = np.array([estimate.log_z for estimate in estimates])
    assert abs(values.mean() - 1000.005) < 5.0 * values.std() / 20.0
    assert np.mean([e.standard_error for e in estimates]) == pytest.approx(values.std(), rel=0.15)
    assert log_mean_exp(np.full(7, -5.0)) == pytest.approx((-5.0, 0.0, 7.0))
    assert log_mean_exp(np.array([0.0, -900.0])).effective_sample_size == pytest.approx(1.0)


def test_the_gaussian_is_a_density():
    x = jnp.array([[0.3, -1.0], [2.0, 0.5]])
    base = Gaussian(jnp.array([1.0, 0.0]), jnp.array([0.5, 2.0]))
    z = (np.asarray(x) - [1.0, 0.0]) / [0.5, 2.0]
    expected = 0.5 * np.sum(z**2, axis=1) + math.log(2.0 * math.pi) + math.log(0.5 * 2.0)
    np.testing.assert_allclose(base.energy(x), expected, rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(base.energy(x)))(x)
    np.testing.assert_allclose(base.gradient(x), gradient, rtol=1e-6)
    fitted = gaussian_of(base.sample(KEY, 50_000))
    np.testing.assert_allclose(fitted.mean, base.mean, atol=0.05)
    assert float(fitted.std) == pytest.approx(math.sqrt((0.25 + 4.0) / 2.0), rel=0.02)


def test_bits_per_dimension():
    """Of N(0, 1) on average log2 (2πe)^½, and of halved bins one bit more."""
    nats = -5 * 0.5 * math.log(2.0 * math.pi * math.e)
    assert bits_per_dimension(nats, 5) == pytest.approx(2.0471, abs=1e-4)
    assert bits_per_dimension(nats, 5, 0.5) == pytest.approx(3.0471, abs=1e-4)
