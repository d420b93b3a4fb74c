"""Checks of the samplers' arguments. Of traced values only the type and shape are checked."""

import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np


def points(x: chex.Array, name: str = 'x') -> chex.Array:
    """`x` as a JAX array of one or more chains, `[B, ...]`.

    Raises:
      TypeError: if it is not an array of floating-point numbers.
      ValueError: if it has no chains.
    """
    check_floats(name, x)
    if x.ndim == 0 or x.shape[0] == 0:
        raise ValueError(
            f'{name} must have a first axis of one or more chains, got shape {x.shape}'
        )
    return jax.lax.convert_element_type(x, jax.dtypes.canonicalize_dtype(x.dtype))


def check_floats(name: str, x: chex.Array) -> None:
    """Raises a TypeError unless `x` is an array of floating-point numbers of 16, 32 or 64 bits."""
    if not isinstance(x, jax.Array | np.ndarray) or isinstance(x, np.ma.MaskedArray):
        raise TypeError(f'{name} must be an array of numbers, got {type(x).__name__}')
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.itemsize not in (2, 4, 8):
        raise TypeError(
            f'{name} must be of floating-point numbers of 16, 32 or 64 bits, got {x.dtype}'
        )


def whole_number(name: str, value: int, least: int = 0) -> int:
    """A static integer of at least `least`, such as a number of steps.

    Raises:
      TypeError, ValueError: for anything else.
    """
    try:
        number = operator.index(value)
    except TypeError:
        is_traced = isinstance(value, jax.core.Tracer)
        got = 'a traced value; make it static' if is_traced else repr(value)
        raise TypeError(f'{name} must be a whole number, got {got}') from None
    if number < least:
        raise ValueError(f'{name} must be {least} or more, got {number}')
    return number


def check_positive(**settings: chex.Numeric) -> None:
    """Raises a TypeError or ValueError unless each setting is traced, or positive and finite."""
    for name, value in settings.items():
        _check(name, value, 'a positive number', lambda number: (number > 0) & np.isfinite(number))


def check_not_negative(**settings: chex.Numeric) -> None:
    """Raises a TypeError or ValueError unless each setting is traced, or finite and 0 or more."""
    for name, value in settings.items():
        _check(
            name,
            value,
            '0 or a positive number',
            lambda number: (number >= 0) & np.isfinite(number),
        )


def check_shares(**settings: chex.Numeric) -> None:
    """Raises a TypeError or ValueError unless each setting is traced, or in [0, 1]."""
    for name, value in settings.items():
        _check(name, value, 'in [0, 1]', lambda number: (number >= 0) & (number <= 1))


def check_step(**settings: chex.Numeric) -> None:
    """Raises a TypeError or ValueError unless each setting is traced, or a whole number from 0."""
    for name, value in settings.items():
        _check(name, value, '0 or a positive whole number', lambda number: number >= 0, jnp.integer)


def check_mask(name: str, mask: chex.Array, x: chex.Array) -> None:
    """Raises a TypeError or ValueError unless a mask is bool and broadcasts to `x` in its axes."""
    if not isinstance(mask, jax.Array | np.ndarray) or mask.dtype != bool:
        raise TypeError(f'{name} must be a bool array, got {getattr(mask, "dtype", mask)}')
    if mask.ndim != x.ndim or any(
        size not in (1, full) for size, full in zip(mask.shape, x.shape, strict=True)
    ):
        raise ValueError(f'{name} must broadcast to x {x.shape} axis by axis, got {mask.shape}')


def _check(name, value, expected, is_right, kind=None):
    if isinstance(value, jax.core.Tracer):
        return
    numbers = np.asarray(value)
    kinds = (kind,) if kind else (jnp.integer, jnp.floating)
    is_list = isinstance(value, list | tuple)  # Which JAX takes for several arguments.
    if is_list or not any(jnp.issubdtype(numbers.dtype, kind) for kind in kinds):
        raise TypeError(f'{name} must be {expected}, got {value!r}')
    if jnp.issubdtype(numbers.dtype, jnp.integer) and np.any(numbers >= 2**31):
        raise ValueError(f'{name} must be {expected} below 2**31, got {value!r}')
    if not np.all(is_right(numbers)):
        raise ValueError(f'{name} must be {expected}, got {value!r}')
