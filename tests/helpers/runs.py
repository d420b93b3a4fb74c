"""Runs of training, for tests."""

import json

import jax
import numpy as np

from vaebm_jax.tasks import task_of
from vaebm_jax.training import loop


def train(config, workdir, **options):
    """As the command line trains: with the pictures of the run's task."""
    return loop.train(config, workdir, **{'preview': task_of(config).preview} | options)


def rows(workdir):
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    return [{**json.loads(line), 'images_per_second': None} for line in lines]


def assert_same_states(ours, theirs):
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        np.testing.assert_array_equal(leaf, other, err_msg=jax.tree_util.keystr(path))
