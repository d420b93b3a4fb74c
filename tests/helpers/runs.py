"""Runs of training, for tests."""

import json

import jax
import numpy as np
import optax

from vaebm_jax.models.states import States, TrainState
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


def with_plain_steps(states: States) -> States:
    """The states with normal numbers added to all parameters, and steps of minus the gradient."""

    def plain(model):
        leaves, tree = jax.tree.flatten(model.params)
        numbers = np.random.default_rng(0)
        leaves = [
            leaf + 0.1 * numbers.normal(size=leaf.shape).astype(leaf.dtype) for leaf in leaves
        ]
        return TrainState.create(
            apply_fn=model.apply_fn,
            params=tree.unflatten(leaves),
            tx=optax.sgd(1.0),
            is_critic=model.is_critic,
        )

    return states.replace(models={name: plain(model) for name, model in states.models.items()})


def assert_learned(after: TrainState, before: TrainState, loss_fn):
    """That a model of `with_plain_steps` has made one step on a loss of its parameters."""
    grads = jax.jit(jax.grad(loss_fn))(before.params)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads)) > 1e-3

    def compare(after, before, grad):
        np.testing.assert_allclose(before - after, grad, rtol=1e-4, atol=1e-4)

    jax.tree.map(compare, after.params, before.params, grads)
