"""A config file whose variant is a workdir: the config that the run there was started with."""

from vaebm_jax.config import Config
from vaebm_jax.training.checkpoints import load_config


def get_config(workdir: str) -> Config:
    return load_config(workdir)
