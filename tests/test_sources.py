"""A data set is one row of SOURCES."""

import dataclasses

import numpy as np
import pytest

from vaebm_jax import data, densities
from vaebm_jax.config import Config, DataConfig, validate
from vaebm_jax.errors import UserError
from vaebm_jax.evaluate import evaluate
from vaebm_jax.plane import evaluate_points, sample_points
from vaebm_jax.sample import sample
from vaebm_jax.sources import SOURCES, Source
from vaebm_jax.train import train


def stripes(data: DataConfig, split: str) -> np.ndarray:
    """Rows of one grey value each, 60 images of 8x8; other ones in each split."""
    rng = np.random.default_rng(('train', 'test').index(split))
    rows = rng.integers(0, 256, (60, 8, 1, 1), np.uint8)
    return np.broadcast_to(rows, (60, 8, 8, 1)).copy()


def test_a_new_data_set_is_one_row(tiny_config, tmp_path, monkeypatch, capfd):
    config = dataclasses.replace(tiny_config, num_steps=4, data=DataConfig(name='stripes'))
    with pytest.raises(UserError, match=r"data.name must be one of digits, .*, got 'stripes'"):
        validate(config)
    monkeypatch.setitem(SOURCES, 'stripes', Source(stripes, image_size=8))
    with pytest.raises(UserError, match='data.image_size must be 8 for stripes, got 9'):
        validate(dataclasses.replace(config, data=DataConfig('stripes', image_size=9)))
    train(config, tmp_path)
    states = train(dataclasses.replace(config, num_steps=6), tmp_path)
    assert int(states.energy.step) == 6
    lines = capfd.readouterr().err
    assert 'data: 60 images of stripes' in lines and 'resume: from step 4' in lines
    sample(config, tmp_path, num_samples=20)
    evaluate(config, tmp_path, num_samples=20)
    for name in ('samples/refined.npz', 'samples/reconstruction.png', 'evaluation.json'):
        assert (tmp_path / name).is_file()


def test_a_new_density_is_one_row(tiny_config, tmp_path, monkeypatch):
    place = densities.Mixture(
        np.zeros((1, 2)),
        1.0,
        1,
        lambda rng, count: np.zeros((count, 2)),
        lambda x: np.zeros(len(x), int),
    )
    points = lambda data, split: place.draw(200, seed=len(split)).reshape(-1, 1, 1, 2)
    row = Source(points, image_size=1, num_channels=2, density=place)
    monkeypatch.setitem(SOURCES, 'gaussian', row)
    config = dataclasses.replace(tiny_config, latent_dim=2, data=DataConfig('gaussian', '', 1))
    with pytest.raises(UserError, match='num_channels must be 2 for gaussian, got 1; .*linear for'):
        validate(config)
    config.data.num_channels, config.network.decoder_output = 2, 'linear'
    train(config, tmp_path)
    sample_points(config, tmp_path, num_samples=50)
    result = evaluate_points(config, tmp_path, num_samples=50)
    assert result['refined']['mode_weights'] == [1.0] and result['kl_data_energy'] > 0


@pytest.mark.parametrize('name', SOURCES)
def test_a_setting_that_a_data_set_does_not_use_is_refused(name):
    source = SOURCES[name]
    others = {'load_size': 99, 'white_level': 300, 'crop': 'left', 'skip_unreadable': True}
    others |= {'val_share': 0.1, 'test_share': 0.1}
    for setting, value in others.items():
        config = Config(data=DataConfig(name, '/', **{setting: value}))
        config.data.image_size = source.image_size or 8
        config.data.num_channels = source.num_channels or 3
        if source.density:
            config.network.decoder_output = 'linear'
        if setting in source.settings:
            validate(config)
        else:
            with pytest.raises(UserError, match=f'^data.{setting} must be .* but for [^;]*$'):
                validate(config)


def test_the_published_sets_have_their_sizes():
    """By hand."""
    sizes = {'digits': (8, 1), 'mnist': (28, 1), 'fashion_mnist': (28, 1), 'cifar10': (32, 3)}
    sizes |= dict.fromkeys(('eight_gaussians', 'ring', 'two_moons', 'checkerboard'), (1, 2))
    sizes |= dict.fromkeys(('folder', 'facades', 'paris_streetview'), (None, None))
    for name, size in sizes.items():
        assert (SOURCES[name].image_size, SOURCES[name].num_channels) == size
    assert [data.held_out(DataConfig(name)) for name in ('digits', 'mnist')] == ['test', 'test']
