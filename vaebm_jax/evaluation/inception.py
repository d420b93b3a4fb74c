"""The Inception-v3 network of Frechet distances, in JAX.

It is the ImageNet network of TensorFlow's inception-2015-12-05, with TensorFlow's resizing and
scaling and its batch norm folded into the convolutions. The weights come from a file that
`tools/inception_weights.py` writes; a file may end at an earlier layer, and then there are only the
features up to it.
"""

import functools
import os
import zipfile

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vaebm_jax.runtime.atomic_files import at_home
from vaebm_jax.runtime.errors import UserError

SIZE = 299  # Pixels per side of the network's input.
NUM_CLASSES = 1008
WIDTHS = (64, 192, 768, 2048, NUM_CLASSES)

Weights = dict[str, dict[str, chex.Array]]


def load_inception(path: str | os.PathLike) -> Weights:
    """Reads an `.npz` of `<layer>/w` (height, width, in, out) and `<layer>/b`.

    Layers have TensorFlow's names with `_` for `/`; the classifier is `softmax/w`.

    Returns:
      `{layer: {'w': ..., 'b': ...}}` in float32.

    Raises:
      UserError: if the file cannot be read, or lacks layers before others that it has.
    """
    weights = {}
    try:
        with np.load(at_home(path), allow_pickle=False) as file:
            for name in file.files:
                layer, _, kind = name.rpartition('/')
                weights.setdefault(layer, {})[kind] = file[name].astype(np.float32)
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        reason = getattr(error, 'strerror', None) or 'not an .npz of arrays'
        raise UserError(f'inception_weights cannot be read: {path} ({reason})') from error
    wrong = UserError(
        f'inception_weights must be a file of tools/inception_weights.py, got {path}, whose layers '
        f'are not those of Inception-v3'
    )
    try:
        image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.uint8)
        features = jax.eval_shape(inception_features, weights, image)
    except (KeyError, TypeError, ValueError) as error:
        raise wrong from error
    if not features:
        raise wrong
    return jax.tree.map(jnp.asarray, weights)


@jax.jit
def inception_features(weights: Weights, images: chex.Array) -> dict[int, chex.Array]:
    """Features of images, up to the last layer of the weights.

    Args:
      weights: of `load_inception`.
      images: `[B, H, W, C]` uint8 of any size, C being 1 (grey) or 3.

    Returns:
      `{64: [B, 64], 192: ..., 768: ..., 2048: ...}`, means over positions, and with a classifier
      `1008`: its logits without their biases, as used by the Inception score.
    """
    has = lambda *layers: all(layer in weights for layer in layers)
    conv = functools.partial(_conv, weights)
    features = {}
    x = _resized(jnp.broadcast_to(images, (*images.shape[:3], 3)))
    x = (x - 128.0) / 128.0
    if not has('conv'):
        return features
    x = conv(x, 'conv', 2, 'VALID')
    x = conv(x, 'conv_1', 1, 'VALID')
    x = _max_pool(conv(x, 'conv_2'))
    features[64] = _mean(x)
    if not has('conv_3'):
        return features
    x = conv(x, 'conv_3')
    x = _max_pool(conv(x, 'conv_4', 1, 'VALID'))
    features[192] = _mean(x)
    if not has('mixed_conv'):
        return features
    for block in ('mixed', 'mixed_1', 'mixed_2'):
        x = _block_35(functools.partial(conv, block=block), x)
    x = _reduction_17(functools.partial(conv, block='mixed_3'), x)
    for block in ('mixed_4', 'mixed_5', 'mixed_6', 'mixed_7'):
        x = _block_17(functools.partial(conv, block=block), x)
    features[768] = _mean(x)
    if not has('mixed_8_tower_conv'):
        return features
    x = _reduction_8(functools.partial(conv, block='mixed_8'), x)
    x = _block_8(functools.partial(conv, block='mixed_9'), x, _average_pool)
    # As trained, and as in every FID: the last block uses max pooling.
    x = _block_8(functools.partial(conv, block='mixed_10'), x, _max_pool_same)
    features[2048] = _mean(x)
    if has('softmax'):
        features[NUM_CLASSES] = jnp.dot(
            features[2048], weights['softmax']['w'], precision=lax.Precision.HIGHEST
        )
    return features


def _resized(images):
    """TensorFlow's bilinear resizing of 2015, `[B, SIZE, SIZE, C]`: pixel i comes from i h / SIZE.

    Neither the pixels' centres nor the last row are where other libraries have them.
    """

    def weights(size):
        source = np.arange(SIZE) * (size / SIZE)
        low = np.floor(source).astype(int)
        high = np.minimum(low + 1, size - 1)
        part = (source - low)[:, np.newaxis]
        return (np.eye(size)[low] * (1.0 - part) + np.eye(size)[high] * part).astype(np.float32)

    rows, columns = (weights(size) for size in images.shape[1:3])
    return jnp.einsum(
        'ah,bhwc,dw->badc',
        rows,
        images.astype(jnp.float32),
        columns,
        precision=lax.Precision.HIGHEST,
    )


def _conv(weights, x, layer, stride=1, padding='SAME', block=''):
    layer = weights[f'{block}_{layer}' if block else layer]
    plain = functools.partial(_plain_conv, stride=stride, padding=padding)
    fast = plain
    if layer['w'].shape[:2] == (1, 1):
        fast = _product
    elif padding == 'VALID':
        fast = functools.partial(_conv_of_padded, stride=stride)
    x = lax.platform_dependent(x, layer['w'], cpu=fast, default=plain)
    return nn.relu(x + layer['b'].reshape(1, 1, 1, -1))


def _plain_conv(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision=lax.Precision.HIGHEST,
    )


def _product(x, kernel):
    """A convolution with a kernel of one pixel, as the matrix product that it is."""
    return jnp.dot(x, kernel[0, 0], precision=lax.Precision.HIGHEST)


def _conv_of_padded(x, kernel, stride):
    """A VALID convolution as one with a row and a column of zeros, cropped.

    Of a convolution without padding, XLA's CPU compiler first copies what each output reads to
    fresh memory, which costs several times the products.
    """
    rows, columns = (
        (pixels - taps) // stride + 1
        for pixels, taps in zip(x.shape[1:3], kernel.shape[:2], strict=True)
    )
    return _plain_conv(x, kernel, stride, ((0, 1), (0, 1)))[:, :rows, :columns]


def _chain(conv, x, prefix, count):
    """`prefix_conv`, `prefix_conv_1`, ... one after the other."""
    for index in range(count):
        x = conv(x, f'{prefix}conv_{index}' if index else f'{prefix}conv')
    return x


def _block_35(conv, x):
    return _joined(
        conv(x, 'conv'),
        _chain(conv, x, 'tower_', 2),
        _chain(conv, x, 'tower_1_', 3),
        conv(_average_pool(x), 'tower_2_conv'),
    )


def _reduction_17(conv, x):
    tower = conv(_chain(conv, x, 'tower_', 2), 'tower_conv_2', 2, 'VALID')
    return _joined(conv(x, 'conv', 2, 'VALID'), tower, _max_pool(x))


def _block_17(conv, x):
    return _joined(
        conv(x, 'conv'),
        _chain(conv, x, 'tower_', 3),
        _chain(conv, x, 'tower_1_', 5),
        conv(_average_pool(x), 'tower_2_conv'),
    )


def _reduction_8(conv, x):
    tower = conv(conv(x, 'tower_conv'), 'tower_conv_1', 2, 'VALID')
    tower_1 = conv(_chain(conv, x, 'tower_1_', 3), 'tower_1_conv_3', 2, 'VALID')
    return _joined(tower, tower_1, _max_pool(x))


def _block_8(conv, x, pool):
    tower, tower_1 = conv(x, 'tower_conv'), _chain(conv, x, 'tower_1_', 2)
    return _joined(
        conv(x, 'conv'),
        conv(tower, 'tower_mixed_conv'),
        conv(tower, 'tower_mixed_conv_1'),
        conv(tower_1, 'tower_1_mixed_conv'),
        conv(tower_1, 'tower_1_mixed_conv_1'),
        conv(pool(x), 'tower_2_conv'),
    )


def _joined(*parts):
    return jnp.concatenate(parts, axis=-1)


def _mean(x):
    return jnp.mean(x, axis=(1, 2))


def _max_pool(x):
    plain = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding='VALID')
    return lax.platform_dependent(x, cpu=_max_pool_of_lines, default=plain)


def _max_pool_of_lines(x):
    """The same along one axis after the other, which vectorizes over the channels."""
    for axis in (1, 2):
        last = x.shape[axis] - 2
        lines = [lax.slice_in_dim(x, i, last + i, 2, axis) for i in range(3)]
        x = functools.reduce(jnp.maximum, lines)
    return x


def _max_pool_same(x):
    return nn.max_pool(x, (3, 3), (1, 1), 'SAME')


def _average_pool(x):
    """Means over the pixels that there are of 3x3, by the sums along one axis after the other."""
    for axis in (1, 2):
        size = x.shape[axis]
        edge = [(1, 1) if index == axis else (0, 0) for index in range(x.ndim)]
        padded = jnp.pad(x, edge)
        before, after = (lax.slice_in_dim(padded, i, size + i, 1, axis) for i in (0, 2))
        counts = np.convolve(np.ones(size, np.float32), np.ones(3, np.float32), 'same')
        x = (before + x + after) / np.expand_dims(counts, [i for i in range(x.ndim) if i != axis])
    return x
