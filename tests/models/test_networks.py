"""Tables of layers become the networks that they describe."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vaebm_jax.config import (
    cifar10_paper_network,
    mnist_paper_network,
    recovery_network,
)
from vaebm_jax.models import vae
from vaebm_jax.models.networks import (
    Decoder,
    Encoder,
    EnergyNet,
    PatchCritic,
    cast_inner,
    leaky_relu,
)

KEY = jax.random.key(0)
TRUNK = (('conv', 4, 3, 2), ('dense', 16))
UPWARDS = (('map', 8), ('up', 8, 3), ('conv', 8, 3))
FLAT = (('dense', 16),)


def normal(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def parameters(net, *examples):
    """Numbers of a healthy size in every leaf, biases as well, so that each of them counts."""
    shapes = jax.eval_shape(net.init, KEY, *examples)
    return jax.tree.map(lambda leaf: normal(*leaf.shape) / np.prod(leaf.shape[:-1]) ** 0.5, shapes)


def apply(net, *args, **kwargs):
    return jax.jit(net.apply)(*args, **kwargs)


def num_parameters(net, *shapes):
    examples = [jnp.zeros(shape) for shape in shapes]
    params = jax.eval_shape(net.init, KEY, *examples)['params']
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    'table, image, energy, encoder',
    [
        pytest.param(cifar10_paper_network(), (1, 32, 32, 3), 1_710_465, 4_393_800, id='cifar10'),
        pytest.param(mnist_paper_network(), (1, 28, 28, 1), 1_625_188, 759_688, id='mnist'),
    ],
)
def test_the_authors_parameter_counts(table, image, energy, encoder):
    assert num_parameters(EnergyNet(table.energy, table.energy_outputs), image) == energy
    assert num_parameters(Encoder(table.encoder, 100), image) == encoder


# Features of the authors' PatchGAN: patches of 70 pixels, of 34 for small images.
PATCHES_70 = (('conv', 64, 4, 2), ('conv', 128, 4, 2), ('conv', 256, 4, 2), ('conv', 512, 4, 1))
PATCHES_34 = (('conv', 16, 4, 2), ('conv', 32, 4, 2), ('conv', 64, 4, 1))


def test_a_patch_critics_parameter_count():
    """The authors' 2,768,705 has norms of 2 · 896 numbers in place of 896 biases."""
    assert num_parameters(PatchCritic(PATCHES_70), (1, 64, 64, 6)) == 2_768_705 - 896
    one = num_parameters(PatchCritic(PATCHES_34), (1, 64, 64, 3))
    assert num_parameters(PatchCritic(PATCHES_34, 2), (1, 64, 64, 3)) == 2 * one


@pytest.mark.parametrize(
    'table, size, places, patch',
    [
        pytest.param(PATCHES_70, 128, 16, 70, id='70'),
        pytest.param(PATCHES_34, 64, 16, 34, id='34'),
        pytest.param(recovery_network(64).energy, 64, 8, 46, id='recovery'),
    ],
)
def test_an_output_is_of_one_patch(table, size, places, patch):
    """Its Jacobian is 0 outside, and nowhere 0 on all of the patch's border."""
    thin = tuple((kind, 2, *sizes) for kind, _, *sizes in table)
    net, image = PatchCritic(thin), normal(1, size, size, 1)
    params = parameters(net, image)
    output = lambda image: net.apply(params, image, method='maps')[0]
    assert jax.eval_shape(output, image).shape == (1, places, places)
    middle = places // 2
    slope = jax.jit(jax.grad(lambda image: output(image)[0, middle, middle]))(image)
    rows, columns = np.nonzero(slope[0, :, :, 0])
    for line in (rows, columns):
        assert line.max() - line.min() + 1 == patch


def test_a_patch_critic_has_two_scales():
    net = PatchCritic((('conv', 3, 4, 2), ('res', 4, 1)), num_scales=2, reads_condition=False)
    images, condition = normal(2, 12, 12, 3), normal(2, 12, 12, 4, seed=2)
    params = parameters(net, images, condition)
    fine, coarse = maps = net.apply(params, images, condition, method='maps')
    assert fine.shape == (2, 6, 6) and coarse.shape == (2, 3, 3)
    means = images.reshape(2, 6, 2, 6, 2, 3).mean(axis=(2, 4))
    other, same = net.apply(params, means.repeat(2, 1).repeat(2, 2), method='maps')
    np.testing.assert_allclose(same, coarse, atol=1e-5)
    assert np.abs(other - fine).max() > 1e-2
    expected = sum(np.asarray(each).mean(axis=(1, 2)) for each in maps) / 2
    np.testing.assert_allclose(net.apply(params, images), expected, rtol=1e-5)


def test_decoder_parameter_count():
    """Dense 5 -> 4x4x8, 3x3 8 -> 4x8, 3x3 8 -> 8, 3x3 8 -> 1; three norms of scale and offset."""
    weights = 5 * 128 + 128 + 9 * 8 * 32 + 32 + 9 * 8 * 8 + 8 + 9 * 8 + 1
    assert num_parameters(Decoder(UPWARDS, (8, 8, 1)), (1, 5)) == weights + 3 * 16
    assert num_parameters(Decoder(UPWARDS, (8, 8, 1), norm='none'), (1, 5)) == weights


def leaky(x):
    return np.where(x > 0.0, x, 0.2 * x)


def silu(x):
    return x / (1.0 + np.exp(-x))


def dense(layer, x):
    return x @ np.asarray(layer['kernel']) + np.asarray(layer['bias'])


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_leaky_relu_is_flaxs_on_every_platform(dtype, monkeypatch):
    x = jnp.array([-3.0, -1e-30, -0.0, 0.0, 1e-30, 0.3, 7.0], dtype)
    both = lambda function: jax.vjp(function, x)
    for platform in ('default', 'tpu'):
        branch = lambda *args, platform=platform, **branches: branches[platform](*args)
        monkeypatch.setattr(jax.lax, 'platform_dependent', branch)
        (ours, pull), (theirs, their_pull) = both(leaky_relu), both(lambda x: nn.leaky_relu(x, 0.2))
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(pull(x)[0], their_pull(x)[0])
        assert ours.dtype == dtype


@pytest.mark.parametrize('activation, function', [('leaky_relu', leaky), ('silu', silu)])
def test_energy_against_numpy(activation, function):
    net = EnergyNet((('dense', 6), ('dense', 5)), num_outputs=3, activation=activation)
    x = normal(4, 2, 3, 1)
    variables = parameters(net, x)
    layers, features = variables['params'], np.asarray(x).reshape(4, 6)
    for name in ('Dense_0', 'Dense_1'):
        features = function(dense(layers[name], features))
    expected = dense(layers['energy'], features).sum(axis=1)
    np.testing.assert_allclose(apply(net, variables, x), expected, rtol=1e-5)


@pytest.mark.parametrize('size', [1.0, 1e4])
def test_encoder_against_numpy(size):
    """Of odd images, too: on Fashion-MNIST a head of 2,000 once made the rate infinite."""
    net, x = Encoder((('dense', 6),), latent_dim=3), size * normal(4, 2, 3, 1)
    variables = parameters(net, x)
    layers = variables['params']
    features = leaky(dense(layers['Dense_0'], np.asarray(x).reshape(4, 6)))
    mean, log_std = apply(net, variables, x)
    np.testing.assert_allclose(mean, dense(layers['mean'], features), rtol=1e-5)
    head = dense(layers['log_variance'], features)
    assert head.min() < 0.0 < head.max()
    log_variance = np.where(head > 0.0, np.log1p(np.maximum(head, 0.0)), head)
    np.testing.assert_allclose(log_std, 0.5 * log_variance, rtol=1e-5)
    loss = lambda variables: jnp.sum(vae.rate(*net.apply(variables, x)))
    chex.assert_tree_all_finite(jax.jit(jax.value_and_grad(loss))(variables))


def by_taps(x, layer):
    """A convolution of stride 1, padding "SAME", as a sum over the taps of its kernel."""
    kernel, reach = np.asarray(layer['kernel']), layer['kernel'].shape[0] // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    height, width = x.shape[1:3]
    return np.asarray(layer['bias']) + sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(len(kernel))
        for j in range(len(kernel))
    )


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('features', [3, 5])
def test_residual_rows_against_numpy(stride, features):
    net, x = EnergyNet((('res', features, stride),)), normal(2, 4, 6, 3)
    variables = parameters(net, x)
    layers = variables['params']
    pool = lambda x: x.reshape(2, 4 // stride, stride, 6 // stride, stride, -1).mean(axis=(2, 4))
    inner = pool(by_taps(leaky(by_taps(x, layers['Conv_0'])), layers['Conv_1']))
    around = pool(np.asarray(x))
    assert ('Conv_2' in layers) == (features != 3)
    if features != 3:
        around = by_taps(around, layers['Conv_2'])
    expected = dense(layers['energy'], leaky(around + inner).reshape(2, -1))[:, 0]
    np.testing.assert_allclose(apply(net, variables, x), expected, rtol=1e-4, atol=1e-5)


def test_z_modulates_every_map():
    """Untrained it changes nothing; a feature's scale and shift are those of z's dense layer."""
    layers = (('dense', 6), ('map', 4), ('up', 4, 3))
    plain, modulated = (Decoder(layers, (8, 8, 1), modulated=on) for on in (False, True))
    z = normal(3, 5)
    fresh = modulated.init(KEY, z)['params']
    names = {name for name in fresh if name.startswith('Dense')}
    assert len(names) == 4  # Row dense, row map, a head for each of the two maps.
    heads = [name for name in names if not np.any(fresh[name]['kernel'])]
    assert {fresh[name]['kernel'].shape for name in heads} == {(5, 8)} and len(heads) == 2
    np.testing.assert_array_equal(
        apply(modulated, {'params': fresh}, z).shape, apply(plain, plain.init(KEY, z), z).shape
    )
    shifted = dict(fresh)
    last = max(heads)
    bias = jnp.concatenate([jnp.full(4, -1.0), jnp.arange(4.0)])
    shifted[last] = {'kernel': jnp.zeros((5, 8)), 'bias': bias}
    # Scaled by 1 - 1 = 0 and shifted, every image is the last layer of constant features.
    images = apply(modulated, {'params': shifted}, z)
    constant = jnp.broadcast_to(jnp.arange(4.0), (1, 8, 8, 4))
    expected = np.tanh(by_taps(np.asarray(constant), fresh['image']))
    np.testing.assert_allclose(images, np.broadcast_to(expected, images.shape), atol=1e-5)


@pytest.mark.parametrize(
    'layers, shape',
    [
        (FLAT, (5, 3, 2)),
        (UPWARDS, (8, 8, 1)),
        (UPWARDS, (7, 10, 3)),
        ((('map', 4), ('up', 4, 3), ('up', 4, 3), ('up', 2, 3)), (28, 28, 1)),
        ((('dense', 6), ('map', 4), ('up', 4, 5)), (6, 6, 3)),
    ],
)
def test_decoder_gives_images_in_range(layers, shape):
    net, z = Decoder(layers, shape), normal(3, 5)
    decode, variables = jax.jit(net.apply), parameters(net, z)
    images = decode(variables, z)
    extremes = decode(jax.tree.map(lambda leaf: 4.0 * leaf, variables), z)
    assert images.shape == (3, *shape)
    assert jnp.max(jnp.abs(images)) < 1.0 and jnp.std(images) > 0.01
    assert 0.9 < jnp.max(jnp.abs(extremes)) <= 1.0
    further = apply(Decoder(layers, shape, limit=1.25), variables, z)
    np.testing.assert_allclose(further, 1.25 * images, atol=1e-6)


def test_decoder_crops_the_middle():
    """The same weights make 32 and 28 pixels: but for the last layer's border they agree."""
    layers, z = (('map', 4), ('up', 4, 3), ('up', 4, 3), ('up', 2, 3)), normal(2, 5)
    whole, cropped = Decoder(layers, (32, 32, 1)), Decoder(layers, (28, 28, 1))
    variables = parameters(whole, z)
    middle = apply(whole, variables, z)[:, 3:29, 3:29]
    inner = apply(cropped, variables, z)[:, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, middle, atol=1e-6)


@pytest.mark.parametrize('layers', [UPWARDS, FLAT], ids=['map', 'flat'])
def test_an_image_does_not_depend_on_the_others(layers):
    net, z = Decoder(layers, (8, 8, 1)), normal(4, 5)
    variables = parameters(net, z)
    images = apply(net, variables, z)
    others = apply(net, variables, jnp.concatenate([z[:1], 10.0 * normal(3, 5, seed=2)]))
    np.testing.assert_allclose(others[0], images[0], atol=1e-6)
    assert jnp.max(jnp.abs(others[1] - images[1])) > 1e-2
    np.testing.assert_allclose(apply(net, variables, z[:1])[0], images[0], atol=1e-6)


NETS = {
    'energy': (lambda dtype: EnergyNet(TRUNK, 3, dtype=dtype), (4, 8, 8, 1)),
    'encoder': (lambda dtype: Encoder(TRUNK, 3, dtype=dtype), (4, 8, 8, 1)),
    'decoder': (lambda dtype: Decoder(UPWARDS, (8, 8, 1), dtype=dtype), (4, 5)),
    'flat decoder': (lambda dtype: Decoder(FLAT, (8, 8, 1), dtype=dtype), (4, 5)),
}


@pytest.mark.parametrize('name', NETS)
def test_bfloat16_computes_inside_only(name):
    make, shape = NETS[name]
    x = normal(*shape)
    fine, coarse = make('float32'), make('bfloat16')
    for leaf in jax.tree.leaves(jax.eval_shape(coarse.init, KEY, x)):
        assert leaf.dtype == jnp.float32
    variables = parameters(fine, x)
    outputs, results = apply(fine, variables, x), apply(coarse, variables, x)
    for result, right in zip(jax.tree.leaves(results), jax.tree.leaves(outputs), strict=True):
        assert result.dtype == jnp.float32
        error = jnp.max(jnp.abs(result - right)) / jnp.max(jnp.abs(right))
        assert 1e-5 < error < 0.03  # bfloat16 has 8 bits: it was used, and little is lost
        # The last sums are finer than bfloat16 can tell.
        assert jnp.any(result != result.astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize('net', [EnergyNet(TRUNK), Encoder(TRUNK, 3)], ids=['energy', 'encoder'])
def test_a_condition_joins_the_images_channels(net):
    x, condition = normal(4, 8, 8, 1), normal(4, 8, 8, 2, seed=2)
    variables = parameters(net, x, condition)
    outputs = apply(net, variables, x, condition)
    joined = apply(net, variables, jnp.concatenate([x, condition], axis=-1))
    for result, right in zip(jax.tree.leaves(joined), jax.tree.leaves(outputs), strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-5)
    other = apply(net, variables, x, condition.at[1].add(1.0))
    for result, before in zip(jax.tree.leaves(other), jax.tree.leaves(outputs), strict=True):
        np.testing.assert_allclose(result[0], before[0], atol=1e-6)
        assert jnp.all(jnp.abs(result[1] - before[1]) > 1e-4)


def test_a_condition_joins_the_decoders_latent():
    net, z, condition = Decoder(FLAT, (8, 8, 1)), normal(4, 5), normal(4, 8, 8, 2, seed=2)
    variables = parameters(net, z, condition)
    images = apply(net, variables, z, condition)
    joined = apply(net, variables, jnp.concatenate([z, condition.reshape(4, -1)], axis=-1))
    hint, is_observed = condition[..., :1], condition[..., 1:] > 0.5
    np.testing.assert_allclose(
        images, np.where(is_observed, hint, hint + np.arctanh(joined)), rtol=1e-4, atol=1e-4
    )
    assert jnp.any(jnp.abs(images - apply(net, variables, z, condition + 1.0)) > 0.1)


def dropped(x, keys, layers=(('dropout', 0.25),)):
    """What dropout leaves of `x`: the mean's head is made the identity."""
    net = Encoder(layers, x[0].size)
    params = parameters(net, x)['params']
    params['mean'] = {'kernel': jnp.eye(x[0].size), 'bias': jnp.zeros(x[0].size)}
    return apply(net, {'params': params}, x, dropout_keys=keys)[0].reshape(x.shape)


def test_dropout_drops_its_share_and_raises_the_rest():
    x, keys = 1.0 + normal(64, 8, 8, 1) ** 2, jax.random.split(KEY, 64)
    np.testing.assert_allclose(dropped(x, None), x)  # without keys there is none
    left = dropped(x, keys)
    np.testing.assert_allclose(left[left != 0.0], (x / 0.75)[left != 0.0], rtol=1e-6)
    share = jnp.mean(left == 0.0)
    assert abs(share - 0.25) < 5.0 * (0.25 * 0.75 / x.size) ** 0.5
    # Every row of a table draws anew: two quarters leave 9 of 16.
    twice = jnp.mean(dropped(x, keys, (('dropout', 0.25),) * 2) != 0.0)
    assert abs(twice - 0.5625) < 5.0 * (0.5625 * 0.4375 / x.size) ** 0.5


def test_dropout_is_of_each_chains_own_key():
    x, keys = jnp.ones((64, 8, 8, 1)), jax.random.split(KEY, 64)
    left = dropped(x, keys)
    changed = dropped(x, keys.at[2].set(jax.random.key(9)))
    is_other = jnp.any(changed != left, axis=(1, 2, 3))
    np.testing.assert_array_equal(is_other, jnp.arange(64) == 2)
    assert jnp.any(left[0] != left[1])


@pytest.mark.parametrize('init_std, expected', [(0.005, 0.005), (0.0, 64**-0.5)])
def test_initial_kernels(init_std, expected):
    """`init_std`, or LeCun's one over the square root of the inputs."""
    net = EnergyNet((('dense', 400),), init_std=init_std)
    layer = net.init(KEY, jnp.zeros((1, 8, 8, 1)))['params']['Dense_0']
    np.testing.assert_allclose(jnp.std(layer['kernel']), expected, rtol=0.03)
    np.testing.assert_array_equal(layer['bias'], 0.0)


@pytest.mark.parametrize(
    'net, x',
    [
        (EnergyNet((('up', 4, 3),)), jnp.zeros((1, 8, 8, 1))),
        (Decoder((('dropout', 0.2),), (8, 8, 1)), jnp.zeros((1, 5))),
    ],
    ids=['energy', 'decoder'],
)
def test_a_row_of_another_table_is_refused(net, x):
    with pytest.raises(ValueError, match='rows, got'):
        net.init(KEY, x)


def test_inner_parameters_cast_beforehand_give_the_same_energies():
    x = normal(4, 8, 8, 1)
    net = EnergyNet((('conv', 8, 3, 2), ('dense', 16)), dtype='bfloat16')
    variables = parameters(net, x)
    params = cast_inner(variables['params'], 'bfloat16')
    types = {name: layer['kernel'].dtype for name, layer in params.items()}
    assert types == {'Conv_0': jnp.bfloat16, 'Dense_0': jnp.bfloat16, 'energy': jnp.float32}
    np.testing.assert_array_equal(apply(net, {'params': params}, x), apply(net, variables, x))
    assert cast_inner(variables['params'], 'float32') is variables['params']
