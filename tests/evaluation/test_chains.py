"""Chains whose effective sample size is known, and the definition written out as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import effective_sample_size, langevin_sample, split_r_hat


def autoregressive(rho, num_chains, num_steps, seed=0):
    """Stationary chains x' = ρ x + noise of variance 1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(num_chains)
    chains = []
    for _ in range(num_steps):
        x = rho * x + np.sqrt(1.0 - rho**2) * rng.standard_normal(num_chains)
        chains.append(x)
    return np.stack(chains, axis=1)


@pytest.mark.parametrize('rho', [-0.5, 0.0, 0.5, 0.9])
def test_of_an_autoregressive_process(rho):
    """Correlations ρ^t: N (1 - ρ) / (1 + ρ) of N points."""
    chains = autoregressive(rho, 16, 8000)
    expected = chains.size * (1.0 - rho) / (1.0 + rho)
    np.testing.assert_allclose(effective_sample_size(chains), expected, rtol=0.1)
    assert 0.999 < split_r_hat(chains) < 1.01


def test_it_is_the_precision_of_the_mean():
    """The variance of a mean over N points of variance 1 is 1 / ESS."""
    chains = autoregressive(0.8, 2000, 400)
    found = np.mean([effective_sample_size(chain[np.newaxis]) for chain in chains[:100]])
    np.testing.assert_allclose(found, 1.0 / chains.mean(axis=1).var(), rtol=0.1)


def by_loops(chains):
    """Stan's algorithm, of halves `[M, n]`."""
    half = chains.shape[1] // 2
    chains = np.concatenate([chains[:, :half], chains[:, -half:]])
    num_chains, n = chains.shape
    moved = chains - chains.mean(axis=1, keepdims=True)
    covariance = [np.mean(np.sum(moved[:, t:] * moved[:, : n - t], axis=1)) / n for t in range(n)]
    within = covariance[0] * n / (n - 1)
    total = covariance[0] + chains.mean(axis=1).var(ddof=1)
    rho = [1.0] + [1.0 - (within - covariance[t]) / total for t in range(1, n)]
    pairs, t = [], 0
    while t + 3 < n and rho[t] + rho[t + 1] > 0.0:
        pairs.append(rho[t] + rho[t + 1])
        t += 2
    if t + 3 >= n:
        pairs, t = pairs[: (n - 1) // 2 - 1], 2 * ((n - 1) // 2 - 1)
    for k in range(1, len(pairs)):
        pairs[k] = min(pairs[k], pairs[k - 1])
    time = -1.0 + 2.0 * sum(pairs) + max(rho[t], 0.0)
    size = num_chains * n / max(time, 1.0 / np.log10(num_chains * n))
    return size, np.sqrt(total / within)


@pytest.mark.parametrize('rho', [-0.9, 0.0, 0.7, 0.99])
@pytest.mark.parametrize('num_steps', [10, 11, 13, 40, 201])
def test_the_definition_by_loops(rho, num_steps):
    chains = autoregressive(rho, 3, num_steps) + 5.0
    size, r_hat = by_loops(chains)
    np.testing.assert_allclose(effective_sample_size(chains), size, rtol=1e-9)
    np.testing.assert_allclose(split_r_hat(chains), r_hat, rtol=1e-9)


def test_numbers_of_arviz():
    """arviz-stats 0.8: `ess(method='mean')` and `rhat(method='split')` of these points."""
    t = np.arange(60)
    chains = np.stack([np.sin(0.7 * t * t + phase) + 0.02 * t * phase for phase in (0.0, 0.5, 2.0)])
    np.testing.assert_allclose(effective_sample_size(chains), 8.29589137, rtol=1e-6)
    np.testing.assert_allclose(split_r_hat(chains), 1.32687918, rtol=1e-6)


def test_a_shifted_chain_is_seen():
    """Shifts by s of half the chains: between them a variance of s² / 4 times 2C / (2C - 1)."""
    chains = autoregressive(0.0, 8, 2000)
    shifted = chains + 3.0 * (np.arange(8) % 2)[:, np.newaxis]
    np.testing.assert_allclose(split_r_hat(shifted), np.sqrt(1.0 + 2.25 * 16 / 15), rtol=0.01)
    assert effective_sample_size(shifted) < 20.0 < 0.9 * chains.size < effective_sample_size(chains)
    # A single chain on its way is compared with itself.
    assert split_r_hat(np.linspace(0.0, 1.0, 100)[np.newaxis]) > 1.5


def test_neither_depends_on_place_and_unit():
    chains = autoregressive(0.5, 4, 500)
    for function in (effective_sample_size, split_r_hat):
        np.testing.assert_allclose(function(1e6 + 1e-3 * chains), function(chains), rtol=1e-5)


def test_further_axes_are_quantities_of_their_own():
    chains = np.stack([autoregressive(rho, 4, 300) for rho in (0.0, 0.5, 0.9)], axis=-1)
    for function in (effective_sample_size, split_r_hat):
        found = function(chains[..., np.newaxis])
        assert found.shape == (3, 1) and found.dtype == np.float64
        np.testing.assert_allclose(found[:, 0], [function(chains[..., i]) for i in range(3)])


def test_what_has_no_answer_is_not_a_number():
    still = np.full((4, 100), 0.1)
    broken = autoregressive(0.0, 4, 100)
    broken[2, 50] = np.inf
    for chains in (still, broken):
        assert np.isnan(effective_sample_size(chains)) and np.isnan(split_r_hat(chains))
    apart = np.repeat(np.arange(4.0), 100).reshape(4, 100)
    assert split_r_hat(apart) == np.inf


@pytest.mark.parametrize(
    ('chains', 'error'),
    [
        (np.zeros(100), ValueError),
        (np.zeros((4, 9)), ValueError),
        (np.zeros((0, 20)), ValueError),
        (np.zeros((4, 20), complex), TypeError),
        (np.zeros((4, 20), bool), TypeError),
        ([['a'] * 20], TypeError),
    ],
)
def test_mistakes_name_the_argument(chains, error):
    for function in (effective_sample_size, split_r_hat):
        with pytest.raises(error, match='chains must'):
            function(chains)


def test_of_the_sampler():
    """Langevin chains of a normal density are AR(1) with ρ = 1 - δ² / 2; types of JAX do."""
    step_size = 0.6
    rho = 1.0 - step_size**2 / 2.0
    x = jnp.zeros(200)

    def step(x, key):
        x, _ = langevin_sample(key, lambda x: x**2 / 2.0, x, num_steps=1, step_size=step_size)
        return x, x

    _, path = jax.lax.scan(step, x, jax.random.split(jax.random.key(0), 1100))
    chains = path[100:].T
    expected = chains.size * (1.0 - rho) / (1.0 + rho)
    np.testing.assert_allclose(effective_sample_size(chains), expected, rtol=0.1)
    coarse = effective_sample_size(chains.astype(jnp.bfloat16))
    np.testing.assert_allclose(coarse, expected, rtol=0.1)
