"""The law of draws: noise belongs to a chain, and never to the device that computes it.

Chain i draws from `fold_in(key, i)`, i being its index over all devices. So a run computes
the same numbers on 1, 2, 4 and 8 devices, up to the order of sums.
"""

import zlib

import chex
import jax
import jax.numpy as jnp


def is_one_a_chain(key: chex.PRNGKey) -> bool:
    """Whether `key` is an array of keys `[B]` (typed, or raw as `[B, 2]`) rather than one."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key.ndim == (1 if typed else 2)


def chain_keys(key: chex.PRNGKey, num_chains: int, first: chex.Numeric = 0) -> chex.PRNGKey:
    """Keys `[num_chains]` of chains `first`, `first + 1`, ...; keys already one a chain stay."""
    if is_one_a_chain(key):
        chex.assert_axis_dimension(key, 0, num_chains)
        return key
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(num_chains))


def branch(key: chex.PRNGKey, name: str) -> chex.PRNGKey:
    """The key of one use of a seed, such as 'generate', apart from all others.

    In JAX `split(key)[i]` is `fold_in(key, i)`, so that two uses that begin with the same key and
    small numbers draw the same. The numbers of names are all above 2³¹.
    """
    return jax.random.fold_in(key, 2**31 | zlib.crc32(name.encode()))


def fold_in(keys: chex.PRNGKey, number: chex.Numeric) -> chex.PRNGKey:
    """Each chain's key `[B]` folded with the same number, such as a step of the chain."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def normal(keys: chex.PRNGKey, shape: tuple[int, ...]) -> chex.Array:
    """Standard normal noise `[B, *shape]`, each row from its own chain's key."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
