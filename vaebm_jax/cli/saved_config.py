"""A config file whose variant is a workdir: it returns the config of the run there."""

from vaebm_jax.config import Config
from vaebm_jax.training.checkpoints import load_config


def get_config(workdir: str) -> Config:
    return load_config(workdir)
