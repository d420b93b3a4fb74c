"""The operations of a training step, counted in its traced program."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from vaebm_jax import create_states
from vaebm_jax.config import Config
from vaebm_jax.methods import METHODS
from vaebm_jax.training.iteration import iterate


def count(config: Config, is_warm_start: bool = False) -> int:
    """Multiplications and additions of an iteration's convolutions and products of matrices.

    Of the method's step, or of its warm start's, plainly computed: as XLA's own convolutions, and
    without the products with zeros that a stride inserts. What a condition or an augmentation costs
    is in it only as far as it is such a product.
    """
    config = dataclasses.replace(config, convolution='plain', dtype='float32')
    method = METHODS[config.method]
    step = method.warm_start if is_warm_start else method.step
    size = config.data.load_size or config.data.image_size
    shape = (config.batch_size, size, size, config.data.num_channels)
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    key = jax.eval_shape(functools.partial(jax.random.key, impl=config.generator), 0)
    states = jax.eval_shape(functools.partial(create_states, config=config), key)
    traced = jax.make_jaxpr(functools.partial(iterate, step=step, config=config))
    return of_program(traced(key, states, images).jaxpr)


def of_program(jaxpr: core.Jaxpr) -> int:
    """The operations of a program; those of a loop as often as it turns."""
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == 'while':
            raise ValueError('a loop whose number of turns is not known cannot be counted')
        if name == 'conv_general_dilated':
            total += of_convolution(equation)
        elif name == 'dot_general':
            total += of_product(equation)
        elif name == 'cond':
            total += max(of_program(branch.jaxpr) for branch in parameters['branches'])
        else:
            turns = parameters['length'] if name == 'scan' else 1
            total += turns * sum(map(of_program, _inner(parameters)))
    return total


def of_convolution(equation: core.JaxprEqn) -> int:
    _, kernel = (x.aval.shape for x in equation.invars)
    parameters = equation.params
    outputs = parameters['dimension_numbers'].rhs_spec[0]
    products = math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // kernel[outputs]
    return 2 * products // math.prod(parameters['lhs_dilation'])


def of_product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _inner(parameters: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The programs that an equation calls."""
    for value in parameters.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part
