import dataclasses

import chex
import jax
import pytest
from helpers.configs import tiny
from helpers.inception import inception_weights, random_port, write

from vaebm_jax.config import Config, DataConfig
from vaebm_jax.evaluation import geometry

# `[B]` against `[B, 1]` is the likeliest silent mistake here.
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(autouse=True, scope='session')
def _compile_once(tmp_path_factory):
    """Tests that train with the same config share a compilation."""
    jax.config.update('jax_compilation_cache_dir', str(tmp_path_factory.mktemp('compiled')))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


@pytest.fixture(autouse=True)
def _fresh_trace_counter():
    chex.clear_trace_counter()


@pytest.fixture
def tiny_config() -> Config:
    return tiny()


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Random numbers in the first layers of Inception-v3: 64 features."""
    arrays = inception_weights.converted(random_port())
    stem = {
        name: arrays[f'{layer}/{name[-1]}']
        for layer in ('conv', 'conv_1', 'conv_2')
        for name in (f'{layer}/w', f'{layer}/b')
    }
    return write(tmp_path_factory.mktemp('weights') / 'stem.npz', stem)


@pytest.fixture
def toy_config(tiny_config, monkeypatch) -> Config:
    """Of points of the plane."""
    # Coarser grids, for speed: cells of 1/6, narrower than the ring's deviation.
    monkeypatch.setattr(geometry.make_grid, '__defaults__', (5.0, 60))
    monkeypatch.setattr(geometry, '_PRIOR_CELLS', 60)
    config = dataclasses.replace(
        tiny_config,
        latent_dim=2,
        num_steps=4,
        keep_checkpoints=0,
        data=DataConfig(name='ring', image_size=1, num_channels=2),
    )
    config.langevin.step_size = 0.2
    config.energy.reference_std = 1.5
    config.network.decoder_output = 'linear'
    return config
