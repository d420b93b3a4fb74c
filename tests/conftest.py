import chex
import jax
import pytest

from vaebm_jax.config import Config, DataConfig, LangevinConfig, NetworkConfig

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


def tiny() -> Config:
    """8x8 images through small dense networks: a step takes milliseconds."""
    table = (('dense', 16),)
    return Config(
        num_steps=6,
        batch_size=8,
        latent_dim=4,
        log_every=2,
        sample_every=0,
        checkpoint_every=2,
        data=DataConfig(name='digits'),
        langevin=LangevinConfig(num_steps=3),
        network=NetworkConfig(energy=table, encoder=table, decoder=table),
    )


@pytest.fixture
def tiny_config() -> Config:
    return tiny()
