"""A small run on points: samples, scores and the film of its training."""

import json

import numpy as np
import pytest
from helpers.configs import read_config
from helpers.runs import train
from PIL import Image

from vaebm_jax.data.densities import DENSITIES
from vaebm_jax.evaluation import geometry
from vaebm_jax.evaluation.point_scores import kl_histogram, refined_mass, sample_weights
from vaebm_jax.figures import film
from vaebm_jax.tasks.points import Draws, evaluate_points, gathered, sample_points
from vaebm_jax.tasks.report import write_report


def test_a_run_on_points_is_sampled_scored_and_filmed(toy_config, tmp_path):
    train(toy_config, tmp_path)
    samples = tmp_path / 'samples'
    sample_points(toy_config, tmp_path, num_samples=700)
    with np.load(samples / 'refined.npz') as file:
        points = file['images']
    assert points.shape == (700, 1, 1, 2) and points.dtype == np.float32

    result = evaluate_points(toy_config, tmp_path, num_samples=700)
    assert json.loads((tmp_path / 'evaluation.json').read_text()) == result
    weights = sample_weights(DENSITIES['ring'], points.reshape(-1, 2))
    assert result['refined'].items() >= weights.items()
    assert (result['refined']['langevin_steps'], result['refined_2x']['langevin_steps']) == (3, 6)

    rows = film.write_geometry(toy_config, tmp_path)
    assert [row['step'] for row in rows] == [0, 2, 4]
    lines = (tmp_path / 'geometry.jsonl').read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    for row in rows:
        assert row['posterior_gap'] > 0
        gap = row['kl_p_q'] - row['kl_energy_decoder']
        assert row['posterior_gap'] == pytest.approx(gap, abs=1e-6)
    assert {name: result[name] for name in rows[-1] if name != 'step'} == {
        name: value for name, value in rows[-1].items() if name != 'step'
    }
    for name in ('step_00000004', 'points', 'film', 'divergences'):
        with Image.open(samples / f'{name}.png') as picture:
            assert np.asarray(picture).std() > 0
    assert not (samples / 'parts').exists()
    assert 'divergences.png' not in write_report(tmp_path).read_text()  # Embedded, not linked.


def test_the_law_of_revised_samples_is_that_of_many(toy_config, tmp_path):
    """Draws against the masses after T steps: moments, and how many fall into each 1/2 x 1/2."""
    num_samples = 5000
    states = train(toy_config, tmp_path)
    grid = geometry.make_grid()
    mass, _ = refined_mass(states, toy_config, grid)
    assert mass.sum() == pytest.approx(1.0, abs=1e-4)
    draws = Draws(tmp_path, states, toy_config, num_samples, ('refined',))
    points = gathered(draws)['refined'].reshape(-1, 2)
    mean = mass @ grid.points
    std = np.sqrt(mass @ (grid.points - mean) ** 2)
    assert np.all(np.abs(points.mean(axis=0) - mean) < 4 * std / num_samples**0.5)
    np.testing.assert_allclose(points.std(axis=0), std, rtol=0.05)

    edges = np.linspace(-5.0, 5.0, 21)
    expected = mass.reshape(20, 3, 20, 3).sum(axis=(1, 3))  # Rows of y, columns of x.
    counts = np.histogram2d(points[:, 1], points[:, 0], (edges, edges))[0]
    deviation = np.sqrt(num_samples * expected * (1 - expected)) + 1.0
    assert np.all(np.abs(counts - num_samples * expected) < 5 * deviation)


def test_a_perfect_sample_has_weights_of_one():
    density = DENSITIES['eight_gaussians']
    points = density.draw(50_000, seed=1)
    weights = sample_weights(density, points)
    assert 0.95 < weights['least'] < 1 < weights['most'] < 1.05 and weights['off_modes'] == 0
    # Half-counts in 2,304 cells, of which the data fill some: (cells - 1) / 2N and a little more.
    assert 0.005 < kl_histogram(density, points) < 0.04
    doubled = np.concatenate([points, points[density.mode_of(points) == 3]])
    weights = sample_weights(density, doubled)
    assert weights['most'] == pytest.approx(2 / (9 / 8), rel=0.02)
    assert np.argmax(weights['mode_weights']) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, most', [('toy2d', 0.03), ('toy2d:ring', 0.03), ('toy2d:two_moons', 0.05)]
)
def test_the_energy_that_is_learned_is_the_datas(tmp_path, name, most):
    config = read_config(name)
    train(config, tmp_path)
    result = evaluate_points(config, tmp_path, num_samples=50_000)
    print({name: value for name, value in result.items() if name != 'refined_2x'})
    assert 0 <= result['kl_data_energy'] < most
    assert result['refined']['least'] > 0.95 and result['refined']['most'] < 1.05
    assert result['posterior_gap'] > 0 and result['decoder_mass'] == pytest.approx(1.0, abs=0.01)
