"""Runs of training, for tests."""

from vaebm_jax import train as training
from vaebm_jax.tasks import task_of


def train(config, workdir, **options):
    """As the command line trains: with the pictures of the run's task."""
    return training.train(config, workdir, **{'preview': task_of(config).preview} | options)
