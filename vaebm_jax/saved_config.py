"""A config file whose variant is a workdir: the config that the run there was started with."""

from vaebm_jax.checkpoints import load_config
from vaebm_jax.config import Config


def get_config(workdir: str) -> Config:
    return load_config(workdir)
