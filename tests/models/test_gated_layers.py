"""What each output of a gated PixelCNN reads: every earlier value, and nothing else."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vaebm_jax.config import Config, DataConfig, NetworkConfig, validate
from vaebm_jax.methods import create_states
from vaebm_jax.methods.losses import bits
from vaebm_jax.models.pixelcnn import PixelCNN, channels_of, mask
from vaebm_jax.runtime.errors import UserError

KEY = jax.random.key(0)


def parameters(net, shape, scale=1.5):
    """Numbers of a healthy size in every leaf."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(net.init, KEY, jnp.zeros(shape))
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
    return jax.tree.map(
        lambda leaf: scale * draw(leaf) / np.prod(leaf.shape[:-1], initial=1) ** 0.5, shapes
    )


def reads(function, shape):
    """Whether output i reads value j: `[outputs, values]` of an image `[H, W, C]`, flat."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    size = np.prod(shape)
    jacobian = jax.jit(jax.jacrev(lambda x: function(x[jnp.newaxis])))(x)
    return np.asarray(jacobian).reshape(-1, size) != 0.0


def before(size):
    """`[size, size]`, True below the diagonal: value j comes before value i."""
    return np.tri(size, k=-1, dtype=bool)


def test_a_mask_of_three_rows():
    """By hand: channel 0 of two is the first feature, channel 1 the second."""
    channels = channels_of(2, 2)
    first, later = (mask((3, 3), channels, channels, strict) for strict in (True, False))
    for one in (first, later):
        np.testing.assert_array_equal(one[0], 1.0)
        np.testing.assert_array_equal(one[1, 0], 1.0)
        np.testing.assert_array_equal(one[1, 2], 0.0)
        np.testing.assert_array_equal(one[2], 0.0)
    np.testing.assert_array_equal(first[1, 1], [[0, 1], [0, 0]])
    np.testing.assert_array_equal(later[1, 1], [[1, 1], [0, 1]])


def plain(first_kernel, num_layers, features, in_blocks):
    """One stack of masked kernels, `[1, H, W, 3] -> [H, W, 3]`, and its masks' grouping."""
    rng = np.random.default_rng(2)
    image = np.arange(3)
    inner = np.sort(channels_of(features, 3)) if in_blocks else channels_of(features, 3)
    groups = [image, *[inner] * (num_layers - 1), image]

    def net(x):
        for index, (inputs, outputs) in enumerate(itertools.pairwise(groups)):
            size = 3 if index else first_kernel
            seen = mask((size, size), inputs, outputs, strict=index == 0)
            kernel = jnp.asarray(seen * rng.normal(size=seen.shape), jnp.float32)
            geometry = dict(padding='SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
            x = jnp.tanh(lax.conv_general_dilated(x, kernel, (1, 1), **geometry) / 5)
        return x[0]

    return net


@pytest.mark.parametrize('in_blocks', [True, False])
@pytest.mark.parametrize('first_kernel', [3, 7])
def test_one_stack_of_masked_kernels_is_causal_and_has_a_blind_spot(first_kernel, in_blocks):
    size = 6
    seen = reads(plain(first_kernel, 5, 6, in_blocks), (size, size, 3))
    assert not seen[~before(3 * size**2)].any()
    places = seen.reshape(size, size, 3, size, size, 3)
    margin = (first_kernel - 3) // 2
    for (row, column), (other, there) in itertools.product(np.ndindex(size, size), repeat=2):
        above, right = row - other, there - column
        if above > 0:
            assert places[row, column, :, other, there].all() == (right <= above + margin)


def test_two_stacks_read_every_earlier_value():
    """6 x 6 pixels and 7 layers of kernel 3: 0 zeros below the diagonal, and only zeros above."""
    shape = (6, 6, 3)
    net = PixelCNN((*(('gated', 4, 3),) * 7, ('dense', 7)), 5)
    params = parameters(net, (1, *shape))
    # With numbers that differ, no sum over a value's outputs is 0 but where all are.
    weights = jnp.asarray(np.random.default_rng(3).normal(size=5), jnp.float32)
    seen = reads(lambda x: jnp.einsum('bhwcn,n->hwc', net.apply(params, x), weights), shape)
    np.testing.assert_array_equal(seen, before(36 * 3))


def test_each_layer_reads_the_rows_above_alone():
    net = PixelCNN((('gated', 4, 5),) * 3, 2)
    shape = (5, 4, 3)
    params = parameters(net, (1, *shape))
    for layer in range(3):
        above = lambda x, layer=layer: net.apply(params, x, method='rows_above')[layer][0]
        seen = reads(above, shape).reshape(5, -1, 5, 4 * 3).any(axis=(1, 3))
        rows = np.arange(5)
        reach = 2 * layer + 3  # The row above, and two more by each layer.
        distance = rows[:, np.newaxis] - rows
        np.testing.assert_array_equal(seen, (distance > 0) & (distance <= reach))


def test_masked_numbers_of_a_kernel_have_no_gradient():
    net = PixelCNN((('gated', 4, 3),) * 2, 2)
    x = jnp.ones((1, 3, 3, 1))
    grads = jax.jit(jax.grad(lambda params: jnp.sum(net.apply(params, x))))(
        parameters(net, x.shape)
    )
    first, second = (grads['params']['horizontal'][f'Conv_{i}']['kernel'] for i in (0, 2))
    assert not np.asarray(first)[0, 1:].any() and np.asarray(first)[0, 0].any()
    assert not np.asarray(second)[0, 2].any() and np.asarray(second)[0, :2].any(axis=(1, 2)).all()


@pytest.mark.parametrize('shape, levels', [((1, 2, 1), 2), ((2, 1, 3), 2)])
def test_the_probabilities_of_all_images_sum_to_one(shape, levels):
    net = PixelCNN((*(('gated', 6, 3),) * 3, ('dense', 5)), levels)
    params = parameters(net, (1, *shape))
    size = np.prod(shape)
    images = np.array([*itertools.product(range(levels), repeat=size)]).reshape(-1, *shape)
    logits = jax.jit(net.apply)(params, jnp.asarray(2.0 * images / (levels - 1) - 1.0, jnp.float32))
    probability = 2.0 ** (-size * np.asarray(bits(logits, jnp.asarray(images)), np.float64))
    assert len(probability) == levels**size and np.ptp(probability) > 0.1
    np.testing.assert_allclose(probability.sum(), 1.0, rtol=1e-5)


def test_taus_reach_their_own_value_and_those_after_it():
    shape = (3, 3, 3)
    net = PixelCNN((('gated', 6, 3),) * 4, 1, reads_tau=True)
    params = parameters(net, (1, *shape))
    x = jnp.zeros((1, *shape))
    seen = reads(lambda tau: net.apply(params, x, tau=tau), shape)
    assert not np.triu(seen, 1).any()
    assert seen.diagonal().all()
    apply = jax.jit(net.apply)
    half = apply(params, x, tau=jnp.full_like(x, 0.5))
    np.testing.assert_allclose(apply(params, x), half, rtol=1e-5)


TABLES = {
    1: (*(('gated', 32, 3),) * 6, ('dense', 64)),
    3: (*(('gated', 48, 3),) * 6, ('dense', 96)),
}


@pytest.mark.parametrize(
    'method, channels, expected',
    [
        ('pixelcnn', 1, 159_520),
        ('pixelcnn', 3, 395_952),
        # One output in place of 256; a linear map of three taus to 96 gates in each of six layers.
        ('pixeliqn', 3, 321_747 + 6 * (3 * 96 + 96)),
    ],
)
def test_parameter_counts(method, channels, expected):
    data = DataConfig(name='cifar10', image_size=32, num_channels=3) if channels == 3 else {}
    config = Config(method=method, network=NetworkConfig(likelihood=TABLES[channels]))
    config.data = data or config.data
    validate(config)
    states = jax.eval_shape(lambda key: create_states(key, config), KEY)
    assert set(states.models) == {'likelihood'}
    params = states.models['likelihood'].params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    assert channels == 3 or NetworkConfig().likelihood == TABLES[1]


@pytest.mark.parametrize(
    'table',
    [
        (),
        (('gated', 8, 3),),
        (('gated', 8, 3), ('gated', 9, 3)),
        (('gated', 8, 3), ('gated', 8, 4)),
        (('gated', 8, 3), ('dense', 4), ('gated', 8, 3)),
        (('gated', 8), ('gated', 8)),
    ],
)
def test_a_table_that_is_none_is_refused(table):
    with pytest.raises(UserError, match='network.likelihood must be .*, got '):
        validate(Config(network=NetworkConfig(likelihood=table)))
