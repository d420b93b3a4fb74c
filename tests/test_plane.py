"""A small run on points: samples, scores and the film of its training."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from vaebm_jax import film, plane, toy
from vaebm_jax.config import DataConfig
from vaebm_jax.errors import UserError
from vaebm_jax.report import write_report
from vaebm_jax.train import train


@pytest.fixture
def toy_config(tiny_config):
    config = dataclasses.replace(
        tiny_config,
        latent_dim=2,
        num_steps=4,
        keep_checkpoints=0,
        data=DataConfig(name='ring', image_size=1, num_channels=2),
    )
    config.langevin.step_size = 0.1
    config.energy.reference_std = 1.5
    config.network.decoder_output = 'linear'
    return config


def test_a_run_on_points_is_sampled_scored_and_filmed(toy_config, tmp_path):
    train(toy_config, tmp_path)
    samples = tmp_path / 'samples'
    plane.sample_points(toy_config, tmp_path, num_samples=700)
    with np.load(samples / 'refined.npz') as file:
        points = file['images']
    assert points.shape == (700, 1, 1, 2) and points.dtype == np.float32

    result = plane.evaluate_points(toy_config, tmp_path, num_samples=700)
    assert json.loads((tmp_path / 'evaluation.json').read_text()) == result
    weights = plane.sample_weights('ring', points.reshape(-1, 2))
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
    """The histogram of draws against the density after T steps, by its own KL's floor."""
    states = train(toy_config, tmp_path)
    numbers = plane.geometry_of(states, toy_config)
    draws = plane.Draws(tmp_path, states, toy_config, 5000, ('refined',))
    points = plane.gathered(draws)['refined'].reshape(-1, 2)
    empirical = plane.kl_histogram('ring', points)
    floor = plane.kl_histogram('ring', toy.draw('ring', 5000, seed=3))
    assert numbers['kl_data_revised'] > 10 * floor  # Untrained, it is far from the data.
    assert empirical == pytest.approx(numbers['kl_data_revised'], rel=0.1)


def test_a_perfect_sample_has_weights_of_one():
    points = toy.draw('eight_gaussians', 50_000, seed=1)
    weights = plane.sample_weights('eight_gaussians', points)
    assert 0.95 < weights['least'] < 1 < weights['most'] < 1.05 and weights['off_modes'] == 0
    # Half-counts in 2,304 cells, of which the data fill some: (cells - 1) / 2N and a little more.
    assert 0.005 < plane.kl_histogram('eight_gaussians', points) < 0.04
    doubled = np.concatenate([points, points[toy.mode_of('eight_gaussians', points) == 3]])
    weights = plane.sample_weights('eight_gaussians', doubled)
    assert weights['most'] == pytest.approx(2 / (9 / 8), rel=0.02)
    assert np.argmax(weights['mode_weights']) == 3


def test_images_have_no_such_geometry(tiny_config):
    with pytest.raises(UserError, match='--mode=geometry needs a run on points .* got digits'):
        plane.refuse_images(tiny_config)
