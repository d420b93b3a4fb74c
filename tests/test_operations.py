"""benchmarks/operations.py: the operations of programs that can be counted by hand."""

import sys

import jax
import jax.numpy as jnp
import pytest
from helpers.commands import ROOT
from jax import lax

from vaebm_jax import config as c

sys.path.insert(0, str(ROOT / 'benchmarks'))
import operations  # noqa: E402

FORWARD = 2 * 5 * 4 * 4 * 3 * 3 * 2 * 7  # Of 5 images of 8 x 8, 2 to 7 features, 3 x 3, stride 2.


def convolve(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def counted(function, *arguments):
    return operations.of_program(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_a_convolution_and_its_gradients():
    x, kernel = jnp.ones((5, 8, 8, 2)), jnp.ones((3, 3, 2, 7))
    assert counted(convolve, x, kernel) == FORWARD
    square = lambda x, kernel: jnp.sum(convolve(x, kernel) ** 2)
    assert counted(jax.grad(square, argnums=0), x, kernel) == 2 * FORWARD
    assert counted(jax.grad(square, argnums=(0, 1)), x, kernel) == 3 * FORWARD


def test_products_loops_and_branches():
    x = jnp.ones((6, 6))
    product = 2 * 6**3
    loop = lambda x: lax.scan(lambda y, _: (jax.jit(jnp.matmul)(y, x), None), x, length=11)
    assert counted(loop, x) == 11 * product
    choose = lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)
    assert counted(choose, x) == 2 * product
    with pytest.raises(ValueError, match='turns is not known'):
        counted(lambda x: lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x), x)


def test_a_step_of_the_poster_by_its_shapes():
    """Of dense networks: each chain's turn is two passes of the energy, an update is three."""
    config = c.Config(batch_size=8, num_chains=6, langevin=c.LangevinConfig(num_steps=4))
    layers = [64, *(row[1] for row in config.network.energy), config.network.energy_outputs]
    energy, encoder = products(layers), products([64, *sizes(config.network.encoder), 2 * 16])
    decoder = products([16, *sizes(config.network.decoder), 64])
    # The first layer's input needs no gradient, but for a decoder's z.
    learn_energy, learn_encoder = 3 * sum(energy) - energy[0], 3 * sum(encoder) - encoder[0]
    expected = 6 * (sum(decoder) + 4 * 2 * sum(energy) + learn_encoder + 3 * sum(decoder))
    assert operations.count(config) == expected + (8 + 6) * learn_energy


def sizes(table):
    return [row[1] for row in table]


def products(layers):
    return [2 * a * b for a, b in zip(layers[:-1], layers[1:], strict=True)]
