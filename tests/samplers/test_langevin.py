"""The chain against what Gaussian theory, quadrature and plain numpy say it must give."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import langevin_sample

KEY = jax.random.key(0)


def gaussian_energy(mean=0.0, std=1.0):
    """`|x - m|² / (2 s²)` of points, images or numbers."""
    return lambda x: jnp.sum(jnp.square(x - mean).reshape(x.shape[0], -1), axis=1) / (2 * std**2)


def skewed_energy(x):
    """exp(-U) is the density of the logarithm of a Gamma(2) variable: a long tail to the left."""
    return jnp.exp(x) - 2.0 * x


def assert_moments(samples, mean, variance):
    """Mean and variance of independent normal samples, to five standard errors."""
    samples = np.asarray(samples, np.float64).ravel()
    n = samples.size
    assert abs(samples.mean() - mean) < 5.0 * (variance / n) ** 0.5
    assert abs(samples.var() - variance) < 5.0 * variance * (2.0 / n) ** 0.5


@pytest.mark.parametrize('num_steps, noise_scale', [(1, 1.0), (7, 1.0), (7, 0.5), (25, 1.0)])
def test_mean_and_variance_on_a_gaussian(num_steps, noise_scale):
    mean, std, delta, start = 0.7, 1.5, 0.8, -2.0
    samples, _ = langevin_sample(
        KEY,
        gaussian_energy(mean, std),
        jnp.full((8_000, 4), start),
        num_steps=num_steps,
        step_size=delta,
        noise_scale=noise_scale,
    )
    a = 1.0 - delta**2 / (2.0 * std**2)
    variance = (noise_scale * delta) ** 2 * (1.0 - a ** (2 * num_steps)) / (1.0 - a**2)
    assert_moments(samples, mean + a**num_steps * (start - mean), variance)


def test_stationary_variance():
    std, delta = 0.5, 0.6
    samples, _ = langevin_sample(
        KEY, gaussian_energy(std=std), jnp.zeros((8_000, 4)), num_steps=60, step_size=delta
    )
    # The finite step widens the target's variance by 56 %, so this cannot be taken for s².
    assert_moments(samples, 0.0, std**2 / (1.0 - delta**2 / (4.0 * std**2)))


def test_without_noise_it_is_gradient_descent():
    mean, std, delta = 0.7, 0.5, 0.3
    x = jnp.linspace(-2.0, 2.0, 12).reshape(6, 2)
    revised, _ = langevin_sample(
        KEY, gaussian_energy(mean, std), x, num_steps=9, step_size=delta, noise_scale=0.0
    )
    expected = mean + (1.0 - delta**2 / (2.0 * std**2)) ** 9 * (np.asarray(x) - mean)
    np.testing.assert_allclose(revised, expected, rtol=1e-5)


def test_the_papers_15_cifar_steps_shrink_by_a_known_factor():
    x = jnp.ones((2, 32, 32, 3))
    energy_fn = gaussian_energy(std=0.016)
    x, _ = langevin_sample(KEY, energy_fn, x, num_steps=15, step_size=0.002, noise_scale=0.0)
    np.testing.assert_allclose(x, 0.88901, rtol=1e-5)


def test_a_skewed_energy_against_its_density_by_quadrature():
    grid = np.linspace(-12.0, 4.0, 4001)
    density = np.exp(-(np.exp(grid) - 2.0 * grid))
    density /= density.sum()
    mean = np.sum(density * grid)
    variance = np.sum(density * (grid - mean) ** 2)
    third = np.sum(density * (grid - mean) ** 3)
    assert third < -0.4

    samples, _ = langevin_sample(
        KEY, skewed_energy, jnp.zeros(20_000), num_steps=300, step_size=0.2
    )
    samples = np.asarray(samples, np.float64)
    # Standard errors are 0.006, 0.008 and 0.02; the finite step adds about 0.01.
    assert abs(samples.mean() - mean) < 0.03
    assert abs(samples.var() - variance) < 0.05
    assert abs(np.mean((samples - samples.mean()) ** 3) - third) < 0.1


def test_two_steps_against_numpy():
    """The same key law and formula, written out for one chain at a time."""
    delta, tau = 0.3, 0.7
    start = np.linspace(-1.0, 1.0, 5, dtype=np.float32)
    x, info = langevin_sample(
        KEY, skewed_energy, jnp.asarray(start), num_steps=2, step_size=delta, noise_scale=tau
    )
    for i, expected in enumerate(start):
        key = jax.random.fold_in(KEY, i)
        for t in range(2):
            gradient = np.exp(expected) - 2.0
            np.testing.assert_allclose(
                info['energy'][t, i], np.exp(expected) - 2 * expected, rtol=1e-5
            )
            np.testing.assert_allclose(info['grad_norm'][t, i], abs(gradient), rtol=1e-5)
            noise = float(jax.random.normal(jax.random.fold_in(key, t)))
            expected = expected - 0.5 * delta**2 * gradient + delta * tau * noise
        np.testing.assert_allclose(x[i], expected, rtol=1e-5)


@pytest.mark.parametrize('shape', [(3,), (3, 2), (3, 4, 5, 2)])
def test_info_is_taken_where_each_step_leaves_from(shape):
    x = jax.random.normal(KEY, shape)
    args = dict(step_size=0.4, noise_scale=0.0)
    _, info = langevin_sample(KEY, gaussian_energy(std=0.5), x, num_steps=4, **args)
    a = 1.0 - 0.4**2 / (2.0 * 0.5**2)
    square = np.sum(np.square(np.asarray(x, np.float64)).reshape(3, -1), axis=1)
    left_from = np.stack([square * a ** (2 * t) for t in range(4)])
    np.testing.assert_allclose(info['energy'], left_from / (2.0 * 0.5**2), rtol=1e-4)
    np.testing.assert_allclose(info['grad_norm'], np.sqrt(left_from) / 0.5**2, rtol=1e-4)


def test_no_steps_give_x_back():
    x = jnp.arange(6.0).reshape(3, 2)
    same, info = langevin_sample(KEY, gaussian_energy(), x, num_steps=0, step_size=0.1)
    np.testing.assert_array_equal(same, x)
    assert info['energy'].shape == info['grad_norm'].shape == (0, 3)


def test_one_key_stands_for_its_folds_by_chain():
    x = jnp.zeros((4, 2))
    sample = jax.jit(
        lambda key: langevin_sample(key, gaussian_energy(), x, num_steps=3, step_size=0.5)[0]
    )
    typed = sample(jax.random.key(1))
    for make in (jax.random.key, jax.random.PRNGKey):  # raw keys draw as typed ones do
        keys = jnp.stack([jax.random.fold_in(make(1), i) for i in range(4)])
        np.testing.assert_allclose(sample(make(1)), typed, rtol=1e-6)
        np.testing.assert_allclose(sample(keys), typed, rtol=1e-6)
    assert not np.any(np.isclose(sample(jax.random.key(2)), typed))


def test_a_chain_does_not_depend_on_how_many_there_are():
    x = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)
    args = dict(num_steps=5, step_size=0.5)
    eight, _ = langevin_sample(KEY, gaussian_energy(), x, **args)
    three, _ = langevin_sample(KEY, gaussian_energy(), x[:3], **args)
    np.testing.assert_allclose(eight[:3], three, rtol=1e-6)


def test_no_gradient_flows_through_the_chain():
    @jax.jit
    def outputs(x, theta):
        energy_fn = lambda x: theta * gaussian_energy()(x)
        x, info = langevin_sample(KEY, energy_fn, x, num_steps=3, step_size=0.5)
        return jnp.stack([jnp.sum(x), jnp.sum(info['energy']), jnp.sum(info['grad_norm'])])

    x, theta = jnp.ones((2, 3)), jnp.float32(2.0)
    values = outputs(x, theta)
    assert jnp.all(values != outputs(2.0 * x, theta)) and jnp.all(values != outputs(x, 1.1 * theta))
    for jacobian in jax.jacrev(outputs, argnums=(0, 1))(x, theta):
        np.testing.assert_array_equal(jacobian, 0.0)


@pytest.mark.parametrize('shape', [(4,), (4, 2), (4, 5, 6, 3)])
def test_noise_has_the_shape_of_x(shape):
    flat = lambda x: jnp.zeros(x.shape[0])
    x, _ = langevin_sample(KEY, flat, jnp.zeros(shape), num_steps=1, step_size=0.25)
    assert x.shape == shape and x.dtype == jnp.float32
    assert len(np.unique(np.asarray(x))) == x.size  # a draw of its own for every element


def test_types_of_x_are_kept():
    with jax.enable_x64(True):
        x = jnp.full((2, 3), 0.1, jnp.float64)
        args = dict(num_steps=40, step_size=0.3, noise_scale=0.0)
        revised, info = langevin_sample(KEY, gaussian_energy(), x, **args)
        assert revised.dtype == info['energy'].dtype == jnp.float64
        np.testing.assert_allclose(revised, 0.1 * (1.0 - 0.045) ** 40, rtol=1e-13)
        single, _ = langevin_sample(
            KEY, gaussian_energy(), x.astype(jnp.float32), num_steps=2, step_size=0.3
        )
        assert single.dtype == jnp.float32


@pytest.mark.parametrize(
    'energy_fn',
    [
        lambda x: jnp.sum(x**2, axis=1, keepdims=True),
        lambda x: jnp.sum(x**2),
        lambda x: x**2,
    ],
    ids=['[B, 1]', 'one for all', '[B, D]'],
)
def test_an_energy_that_is_not_one_number_a_chain_is_refused(energy_fn):
    with pytest.raises(ValueError, match='energy_fn must .* shape'):
        langevin_sample(KEY, energy_fn, jnp.ones((4, 2)), num_steps=1, step_size=0.1)


def test_a_drift_too_long_is_shortened_and_no_other():
    x = jnp.array([[3.0, 4.0], [0.3, 0.4]])  # Gradients of |x|²/2: of length 5 and 0.5.
    settings = dict(num_steps=1, step_size=1.0, noise_scale=0.0)
    bounded, _ = langevin_sample(KEY, gaussian_energy(), x, max_drift=1.0, **settings)
    np.testing.assert_allclose(bounded, [[3.0 - 0.6, 4.0 - 0.8], [0.15, 0.2]], rtol=1e-6)
    free, _ = langevin_sample(KEY, gaussian_energy(), x, **settings)
    np.testing.assert_allclose(free, x / 2, rtol=1e-6)
    at_rest, _ = langevin_sample(KEY, gaussian_energy(), 0 * x, max_drift=1.0, **settings)
    np.testing.assert_array_equal(at_rest, 0.0)


def test_elements_of_a_drift_are_bounded_each_by_itself():
    x = jnp.array([[3.0, -4.0, 0.3], [0.3, 0.4, 0.0]])
    settings = dict(num_steps=1, step_size=1.0, noise_scale=0.0, max_element_drift=1.0)
    bounded, _ = langevin_sample(KEY, gaussian_energy(), x, **settings)
    np.testing.assert_allclose(bounded, [[2.0, -3.0, 0.15], [0.15, 0.2, 0.0]], rtol=1e-6)
    both, _ = langevin_sample(KEY, gaussian_energy(), x, max_drift=0.5, **settings)
    length = np.sqrt(2.0 + 0.15**2)
    np.testing.assert_allclose(
        both[0], x[0] - np.array([1.0, -1.0, 0.15]) * 0.5 / length, rtol=1e-6
    )


def test_the_published_steps_of_a_persistent_chain():
    """0.2 a step where the gradient is large (pixels of [-1, 1]), and x - 10 f'(v) where not.

    Du and Mordatch: v -= 10 clip(df/dv, ±0.01), with v in [0, 1] and an energy in units of f.
    """
    settings = dict(step_size=0.01, noise_scale=0.0, max_element_drift=0.2)
    steep = lambda x: 8e5 * jnp.sum(x, axis=-1)
    x, _ = langevin_sample(KEY, steep, jnp.array([[0.8, 0.5]]), num_steps=5, **settings)
    np.testing.assert_allclose(x, [[-0.2, -0.5]], atol=1e-6)
    v, curvature = np.array([0.9, 0.4]), 0.02
    smooth = lambda x: 8e5 * 0.5 * curvature * jnp.sum(jnp.square((x + 1) / 2 - 0.5), axis=-1)
    start = jnp.asarray([2 * v - 1], jnp.float32)
    x, _ = langevin_sample(KEY, smooth, start, num_steps=1, **settings)
    theirs = v - 10 * np.clip(curvature * (v - 0.5), -0.01, 0.01)
    np.testing.assert_allclose((np.asarray(x[0]) + 1) / 2, theirs, atol=1e-6)


def test_chains_go_on_as_if_they_had_not_paused():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    energy_fn = lambda x: jnp.sum(jnp.square(x), axis=1)
    run = functools.partial(langevin_sample, KEY, energy_fn, step_size=0.1)
    whole, _ = run(x, num_steps=7)
    half, _ = run(x, num_steps=3)
    np.testing.assert_allclose(run(half, num_steps=4, first_step=3)[0], whole, rtol=1e-6)
    assert jnp.all(run(half, num_steps=4)[0] != whole)
