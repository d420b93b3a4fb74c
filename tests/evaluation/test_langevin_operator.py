"""The operator of a chain on a Gaussian energy, which is known at every step."""

import numpy as np
import pytest

from vaebm_jax.config import LangevinConfig
from vaebm_jax.evaluation import langevin_operator
from vaebm_jax.evaluation.geometry import make_grid

GRID = make_grid(2.0, 48)


def moments(mass):
    mean = mass @ GRID.points
    return mass.sum(), mean, mass @ np.square(GRID.points - mean)


@pytest.mark.parametrize('step_size', [0.1, 0.18])
def test_mean_and_variance_of_a_gaussian_chain(step_size):
    """After T steps a^T x0 and δ² (1 - a^2T) / (1 - a²), a = 1 - δ²/2s²."""
    std, start = 0.3, np.array([[0.91, -0.63]])
    config = LangevinConfig(step_size=step_size)
    first = langevin_operator.chain_operator(start, start / std**2, config, GRID)
    operator = langevin_operator.chain_operator(GRID.points, GRID.points / std**2, config, GRID)
    factor = 1 - step_size**2 / (2 * std**2)
    for num_steps in (1, 5, 20):
        mass, mean, variance = moments(
            langevin_operator.after(operator, first(np.ones(1)), num_steps - 1)
        )
        assert mass == pytest.approx(1.0, abs=1e-4)
        np.testing.assert_allclose(mean, factor**num_steps * start[0], atol=1e-5)
        expected = step_size**2 * (1 - factor ** (2 * num_steps)) / (1 - factor**2)
        np.testing.assert_allclose(variance, expected, rtol=1e-4)
    mass, mean, variance = moments(langevin_operator.stationary(operator, first(np.ones(1))))
    assert mass == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(mean, 0.0, atol=1e-4)
    np.testing.assert_allclose(variance, std**2 / (1 - step_size**2 / (4 * std**2)), rtol=1e-4)


def test_steps_too_small_for_the_grid_are_refused():
    with pytest.raises(ValueError, match='must be at least 0.0833, got 0.05'):
        config = LangevinConfig(step_size=0.05)
        langevin_operator.chain_operator(GRID.points, GRID.points, config, GRID)
