"""Spectral normalization: every kernel divided by its largest singular value.

It bounds a network's gradient. A kernel, also of a convolution, is taken as the matrix from all
inputs of one output, `[inputs, outputs]` (Miyato et al., Spectral normalization for generative
adversarial networks, 2018). The singular value is found by power iteration from the previous step's
vector.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

_INITIAL_ITERATIONS = 30


@jax.jit
def start(params: chex.ArrayTree) -> dict[str, chex.Array]:
    """The approximate first right singular vector `[outputs]` of each kernel, by its path."""
    u = {}
    for path, kernel in _kernels(params).items():
        # Random, since it must not be orthogonal to the solution; the same every time.
        u[path] = jnp.asarray(np.random.default_rng(0).normal(size=kernel.shape[-1]), kernel.dtype)
    return jax.lax.fori_loop(0, _INITIAL_ITERATIONS, lambda _, u: iterate(params, u), u)


def iterate(params: chex.ArrayTree, u: dict[str, chex.Array]) -> dict[str, chex.Array]:
    """One power iteration for each kernel."""
    return {path: _singular(kernel, u[path])[1] for path, kernel in _kernels(params).items()}


def normalize(
    params: chex.ArrayTree, u: dict[str, chex.Array], norm: float = 1.0
) -> chex.ArrayTree:
    """`params`, each kernel scaled to a largest singular value of `norm`; biases unchanged.

    Differentiable: the singular vectors are constants, and the value `v' W u` has a gradient.
    """
    flat = traverse_util.flatten_dict(params, sep='/')
    for path, kernel in _kernels(params).items():
        v, new = _singular(kernel, u[path])
        value = jnp.vdot(v, kernel.reshape(-1, kernel.shape[-1]) @ new)
        flat[path] = kernel * (norm / value)
    return traverse_util.unflatten_dict(flat, sep='/')


def _kernels(params):
    flat = traverse_util.flatten_dict(params, sep='/')
    return {path: leaf for path, leaf in flat.items() if leaf.ndim > 1}


def _singular(kernel, u):
    """The left and right singular vectors after one iteration from `u`, without gradients."""
    matrix = jax.lax.stop_gradient(kernel).reshape(-1, kernel.shape[-1])
    v = _unit(matrix @ u)
    return v, _unit(matrix.T @ v)


def _unit(vector):
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-30)
