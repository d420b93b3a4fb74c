"""The energy by hand numbers, and its loss by the gradients that theory gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax.models.energy import energy, make_energy_fn, mle_loss, reference_energy

X = jnp.array([[3.0, 4.0], [0.0, 2.0], [1.0, -1.0]])  # squared norms 25, 4, 2
F = jnp.array([1.0, -2.0, 0.5])


@pytest.mark.parametrize('shape', [(3, 2), (3, 1, 2, 1)])
def test_reference_energy(shape):
    np.testing.assert_allclose(reference_energy(X.reshape(shape), 0.5), [50.0, 8.0, 4.0])


@pytest.mark.parametrize(
    'reference_std, scale, expected',
    [
        pytest.param(0.5, 1.0, [50.0 - 1.0, 8.0 + 2.0, 4.0 - 0.5], id='authors'),
        pytest.param(0.5, 0.0, [50.0 - 4.0, 8.0 + 8.0, 4.0 - 2.0], id='normalised'),
        pytest.param(0.5, 3.0, [50.0 - 3.0, 8.0 + 6.0, 4.0 - 1.5], id='any scale'),
        pytest.param(0.0, 1.0, [-1.0, 2.0, -0.5], id='no reference'),
        pytest.param(0.0, 3.0, [-3.0, 6.0, -1.5], id='no reference, any scale'),
    ],
)
def test_energy_by_hand(reference_std, scale, expected):
    np.testing.assert_allclose(energy(F, X, reference_std=reference_std, scale=scale), expected)


def test_the_mean_of_the_reference():
    np.testing.assert_allclose(reference_energy(X, 0.5, 1.0), [26.0, 4.0, 8.0])
    shifted = energy(F, X, reference_std=0.5, scale=1.0, reference_mean=1.0)
    np.testing.assert_allclose(shifted, [26.0 - 1.0, 4.0 + 2.0, 8.0 - 0.5])
    energy_fn = make_energy_fn(
        lambda variables, x, condition: F, {}, reference_std=0.5, scale=1.0, reference_mean=1.0
    )
    np.testing.assert_allclose(energy_fn(X), shifted)


def test_the_normalised_form_is_the_authors_with_f_over_the_variance():
    std = 0.016
    normalised = energy(F, X, reference_std=std)
    np.testing.assert_allclose(normalised, energy(F / std**2, X, reference_std=std, scale=1.0))
    half_square = 0.5 * np.sum(np.square(X), axis=1)
    np.testing.assert_allclose(normalised, (half_square - np.asarray(F)) / std**2, rtol=1e-6)


def test_neither_reference_nor_scale_is_refused():
    with pytest.raises(ValueError, match='scale'):
        energy(F, X, reference_std=0.0)


@pytest.mark.parametrize('f', [F[:, None], jnp.sum(F), F[:2]], ids=['[B, 1]', '[]', '[B - 1]'])
def test_f_of_another_shape_is_refused(f):
    with pytest.raises(AssertionError, match='shape'):
        energy(f, X, reference_std=1.0)


def test_make_energy_fn_passes_parameters_and_condition_on():
    def apply_fn(variables, x, condition):
        offset = 0.0 if condition is None else condition
        return variables['params'] * jnp.sum(x, axis=1) + offset

    free = make_energy_fn(apply_fn, 2.0, reference_std=1.0, scale=1.0)
    np.testing.assert_allclose(free(X), [12.5 - 14.0, 2.0 - 4.0, 1.0 - 0.0])
    given = make_energy_fn(apply_fn, 2.0, F, reference_std=0.0, scale=0.5)
    np.testing.assert_allclose(given(X), [-0.5 * 15.0, -0.5 * 2.0, -0.5 * 0.5])


def test_mle_loss_gradient_is_half_the_difference_of_second_moments():
    data, samples = jnp.array([1.0, 2.0, 3.0]), jnp.array([-1.0, 3.0])
    potential = lambda theta, x: 0.5 * theta * jnp.square(x)
    loss = lambda theta: mle_loss(potential(theta, data), potential(theta, samples))
    value, gradient = jax.value_and_grad(loss)(4.0)
    np.testing.assert_allclose(gradient, 0.5 * (14.0 / 3.0 - 5.0), rtol=1e-6)
    np.testing.assert_allclose(value, 4.0 * gradient, rtol=1e-6)


def test_mle_loss_gradient_in_an_exponential_family():
    """U = theta . T(x): the gradient is E_data T - E_model T, the likelihood's by quadrature."""
    grid = np.linspace(-6.0, 6.0, 1201)
    statistics = lambda x: jnp.stack([x, x**2, x**4], axis=-1)
    theta = jnp.array([0.3, 0.5, 0.1])
    data = jnp.array([-0.5, 0.2, 1.0, 1.4])

    def negative_log_likelihood(theta):
        log_z = jax.nn.logsumexp(-statistics(grid) @ theta) + np.log(grid[1] - grid[0])
        return jnp.mean(statistics(data) @ theta) + log_z

    density = np.exp(-np.asarray(statistics(grid) @ theta))
    # Model samples on a regular grid of quantiles: their mean is an integral.
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    distribution = (np.cumsum(density) - 0.5 * density) / density.sum()
    samples = jnp.asarray(np.interp(quantiles, distribution, grid))
    loss = lambda theta: mle_loss(statistics(data) @ theta, statistics(samples) @ theta)
    expected = jax.grad(negative_log_likelihood)(theta)
    assert np.all(np.abs(expected) > 0.1)
    np.testing.assert_allclose(jax.grad(loss)(theta), expected, atol=1e-3)
