"""One PRNG key per chain, independent of the device that computes the chain.

Chain i uses `fold_in(key, i)`, where i is its index over all devices. So a run computes the same
numbers on 1, 2, 4 and 8 devices, up to the order of sums.
"""

import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np


def is_per_chain(key: chex.PRNGKey) -> bool:
    """Whether `key` is an array of keys `[B]` (typed, or raw as `[B, 2]`) rather than one."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key.ndim == (1 if typed else 2)


def check_key(key: chex.PRNGKey) -> None:
    """Raises a TypeError unless `key` is a JAX key or an array `[B]` of them."""
    if isinstance(key, jax.Array | np.ndarray):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        if key.ndim in ((0, 1) if typed else (1, 2)) and (typed or key.dtype == np.uint32):
            return
        got = f'{key.dtype} of shape {key.shape}'
    else:
        got = repr(key)
    raise TypeError(f'key must be a JAX key, such as jax.random.key(0), or [B] of them, got {got}')


def check_one_key(key: chex.PRNGKey) -> None:
    """Raises a TypeError or ValueError unless `key` is one JAX key."""
    check_key(key)
    if is_per_chain(key):
        raise ValueError(f'key must be one key, got {len(key)}')


def chain_keys(key: chex.PRNGKey, num_chains: int, first: chex.Numeric = 0) -> chex.PRNGKey:
    """Keys `[num_chains]` of chains `first`, `first + 1`, ...; keys per chain stay as they are."""
    check_key(key)
    if is_per_chain(key):
        if len(key) != num_chains:
            raise ValueError(f'key must be one key or {num_chains}, one per chain, got {len(key)}')
        return key
    chains = first + jnp.arange(num_chains, dtype=jnp.int32)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, chains)


def branch(key: chex.PRNGKey, name: str) -> chex.PRNGKey:
    """The key of one use of a seed, such as 'generate', distinct from all others.

    In JAX `split(key)[i]` is `fold_in(key, i)`, so two uses that start with the same key and small
    numbers would get the same keys. The numbers of names are all above 2³¹.
    """
    return jax.random.fold_in(key, 2**31 | zlib.crc32(name.encode()))


def fold_in(keys: chex.PRNGKey, number: chex.Numeric) -> chex.PRNGKey:
    """Each chain's key `[B]` folded with the same number, such as a step of the chain."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def normal(
    keys: chex.PRNGKey, shape: tuple[int, ...], dtype: chex.ArrayDType = jnp.float32
) -> chex.Array:
    """Standard normal noise `[B, *shape]`, each row from its chain's key.

    Of `dtype`, but at least float32; independent of `jax_enable_x64`.
    """
    dtype = _at_least_float32(dtype)
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


def uniform(
    keys: chex.PRNGKey, dtype: chex.ArrayDType = jnp.float32, shape: tuple[int, ...] = ()
) -> chex.Array:
    """Uniform numbers in [0, 1), `[B, *shape]`, each row from its chain's key; as in `normal`."""
    dtype = _at_least_float32(dtype)
    return jax.vmap(lambda key: jax.random.uniform(key, shape, dtype))(keys)


def _at_least_float32(dtype):
    return jax.dtypes.canonicalize_dtype(np.promote_types(dtype, np.float32))
