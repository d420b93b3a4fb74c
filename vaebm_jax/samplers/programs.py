"""A sampler called repeatedly on the same energy is compiled once.

Compiled programs are cached by the traced program of the energy, not by its function: each call
traces the energy again, in milliseconds, so a function whose closure, globals or object have
changed never gets an outdated program. Arrays that it closes over are arguments of the program,
which keeps none of them; those inside a `jax.jit` within the energy are constants, as usual.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

EnergyFn = Callable[[chex.Array], chex.Array]

_NUM_CACHED = 32


class TracedEnergy(NamedTuple):
    """An energy as the program of its values and gradients.

    Attributes:
      program: from `x` to U(x) and ∇U(x), with None for each of its constants.
      constants: the arrays that the energy closes over.
    """

    program: core.ClosedJaxpr
    constants: list[chex.Array]

    def energy_and_gradient(self, x: chex.Array) -> tuple[chex.Array, chex.Array]:
        """U(x) and ∇U(x)."""
        return tuple(core.jaxpr_as_fun(self.program.replace(consts=self.constants))(x))

    def ignores_its_gradient(self) -> bool:
        """Whether the energy depends on `x` but its derivative is 0, as that of rounding."""
        jaxpr = self.program.jaxpr
        reached, zeros = set(jaxpr.invars), set()
        for eqn in jaxpr.eqns:
            inputs = [atom for atom in eqn.invars if not isinstance(atom, core.Literal)]
            if not reached.isdisjoint(inputs):
                reached.update(eqn.outvars)
            elif eqn.primitive.name == 'broadcast_in_dim' and not inputs:
                zeros.update(eqn.outvars if np.all(eqn.invars[0].val == 0) else ())
        energy, gradient = jaxpr.outvars
        return not isinstance(energy, core.Literal) and energy in reached and gradient in zeros


def energy_and_gradient(energy_fn: EnergyFn, x: chex.Array) -> tuple[chex.Array, chex.Array]:
    """U(x), `[B]` nats, and ∇U(x), `[B, ...]`, of any energy.

    Raises:
      TypeError: if it is not a function from JAX arrays to floating-point energies.
      ValueError: if it does not return one energy per chain.
    """
    if isinstance(energy_fn, TracedEnergy):
        return energy_fn.energy_and_gradient(x)
    if not callable(energy_fn):
        raise TypeError(f'energy_fn must be a function of x, got {type(energy_fn).__name__}')
    try:
        energy, pull_back = jax.vjp(energy_fn, x)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError('energy_fn must compute with jax.numpy, it converts x to NumPy') from error
    _check_energy(energy, energy_fn, x)
    (gradient,) = pull_back(jnp.ones_like(energy))
    return energy, gradient


def _check_energy(energy, energy_fn, x):
    num_chains, *shape = x.shape
    expected = (
        'energy_fn must return one floating-point energy a chain, of shape '
        f'{(num_chains,)} for x of shape {x.shape}'
    )
    if not isinstance(energy, jax.Array | np.ndarray):
        raise TypeError(f'{expected}, got {type(energy).__name__}')
    if energy.shape != (num_chains,):
        raise ValueError(f'{expected}, got shape {energy.shape}')
    if not jnp.issubdtype(energy.dtype, jnp.floating):
        raise TypeError(f'{expected}, got {energy.dtype}')
    if num_chains in shape:  # So [B] may be another axis of x.
        more = jax.ShapeDtypeStruct((num_chains + 1, *shape), x.dtype)
        try:
            energy = jax.eval_shape(energy_fn, more)
        except Exception:  # It may be defined only for these chains, such as with conditions.
            return
        if energy.shape != (num_chains + 1,):
            raise ValueError(f'{expected}, got shape {energy.shape} for {more.shape}')


def trace(energy_fn: EnergyFn, x: chex.Array) -> TracedEnergy:
    """Traces an energy of arrays like `x`, `[B, ...]`, as it is at this moment."""
    # A new function each time: JAX would look up the same one in its cache.
    traced = jax.make_jaxpr(lambda x: energy_and_gradient(energy_fn, x))(x)
    return TracedEnergy(traced.replace(consts=[None] * len(traced.consts)), traced.consts)


def run_compiled(run: Callable, energy_fn: EnergyFn, x: chex.Array, *arrays, **settings):
    """`run(energy_fn, *arrays, **settings)` as a compiled program, cached for similar calls.

    If an argument or the energy is traced by an outer transformation, `run` becomes part of that.

    Args:
      run: a function, the same object in every call.
      energy_fn: U.
      x: a point at which U is evaluated, or its shape and type.
      *arrays: trees of arrays and numbers, which may change from call to call.
      **settings: static arguments, hashable.
    """
    if not _has_tracers(arrays):
        energy = trace(energy_fn, x)
        if not _has_tracers(energy.constants):
            program = _compile(run, _Program(energy.program), tuple(settings.items()))
            return program(energy.constants, *arrays)
    return run(energy_fn, *arrays, **settings)


def _has_tracers(tree):
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


@functools.lru_cache(maxsize=_NUM_CACHED)
def _compile(run, program, settings):
    return jax.jit(
        lambda constants, *arrays: run(
            TracedEnergy(program.closed, constants), *arrays, **dict(settings)
        )
    )


class _Program:
    """A closed jaxpr, equal to those with the same content."""

    def __init__(self, closed):
        self.closed = closed
        self.content = _content(closed)

    def __hash__(self):
        return hash(self.content)

    def __eq__(self, other):
        return self.content == other.content


def _content(value):
    """The content of a jaxpr or its parameter, as tuples; unknown objects equal only themselves."""
    if isinstance(value, (core.ClosedJaxpr, core.Jaxpr)):  # One class from JAX 0.12 on.
        constants, jaxpr = getattr(value, 'consts', ()), getattr(value, 'jaxpr', value)
        numbers = {}

        def of(atoms):
            return tuple(
                (atom.aval, _content(np.asarray(atom.val)))
                if isinstance(atom, core.Literal)
                else (atom.aval, numbers.setdefault(atom, len(numbers)))
                for atom in atoms
            )

        ends = _content(constants), of(jaxpr.constvars), of(jaxpr.invars)
        steps = tuple(
            (eqn.primitive, eqn.ctx, of(eqn.invars), of(eqn.outvars), _parameters(eqn))
            for eqn in jaxpr.eqns
        )
        return *ends, steps, of(jaxpr.outvars)
    if isinstance(value, dict):
        return tuple((name, _content(part)) for name, part in value.items())
    if isinstance(value, tuple | list):
        return type(value), *map(_content, value)
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, bool | int | float | complex):
        return type(value), repr(value)  # 0.0 is not -0.0, nor 1 True.
    try:
        hash(value)
    except TypeError:
        return _Itself(value)
    return value


def _parameters(eqn):
    """An equation's parameters without custom derivative rules, which are no longer used."""
    if eqn.primitive.name.startswith(('custom_jvp', 'custom_vjp')):
        return _content(eqn.params['call_jaxpr'])
    return _content(eqn.params)


class _Itself:
    """Equal only for the same object, which is kept alive."""

    def __init__(self, value):
        self.value = value

    def __hash__(self):
        return id(self.value)

    def __eq__(self, other):
        return isinstance(other, _Itself) and self.value is other.value
