"""Handwritten digits of 8x8 pixels, embedded in scikit-learn: the default, nothing to download."""

from vaebm_jax.config import Config


def get_config() -> Config:
    return Config(name='digits', steps_per_call=10)
