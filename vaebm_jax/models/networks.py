"""The networks, each built from a table of layers.

A table is a tuple of rows; `config.NetworkConfig` lists the allowed ones:

    ('conv', features, kernel, stride)   convolution, zero padding ("SAME"), activation; in the
                                         decoder without a stride
    ('res', features, stride)            energy and encoder: residual block of two convolutions of
                                         kernel 3, activation; a stride of 2 averages 2 x 2 pixels
    ('dense', features)                  flattens a map; dense layer, activation
    ('map', features)                    decoder: dense layer to its first, smallest map
    ('down', features, kernel)           decoder with a condition: convolution of stride 2
    ('up', features, kernel)             decoder: twice the size, by a convolution to four times
                                         the features and depth-to-space
    ('dropout', rate)                    encoder, while it learns

Parameters are float32. With `dtype='bfloat16'` the inner layers compute in it; the last layers
(those of energies and critics, the encoder's heads, the decoder's last layer) stay in float32.
"""

import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vaebm_jax.data.conditions import fill_of, keep_observed
from vaebm_jax.models.convolution import FORMS, depth_to_space
from vaebm_jax.samplers.keys import fold_in


def mixes_types(call):
    """Lets layers of bfloat16 and float32 mix, also under JAX's strict promotion."""

    @functools.wraps(call)
    def with_promotion(*args, **kwargs):
        with jax.numpy_dtype_promotion('standard'):
            return call(*args, **kwargs)

    return with_promotion


class Network(nn.Module, kw_only=True):
    """The common part of the networks.

    Attributes:
      activation: 'leaky_relu' (slope 0.2, the authors' choice) or 'silu'.
      dtype: of the inner layers' computation; 'float32' stands for the type of the parameters.
      init_std: standard deviation of initial kernels; 0: LeCun's.
      convolution: 'auto', the package's own, or another of `convolution.FORMS`.
    """

    activation: str = 'leaky_relu'
    dtype: str = 'float32'
    init_std: float = 0.0
    convolution: str = 'auto'

    def activate(self, x):
        return silu(x) if self.activation == 'silu' else leaky_relu(x)

    def conv(self, features, kernel, stride, x, last=None, **settings):
        """`last` is the name of a last layer."""
        layer = nn.Conv(
            features,
            (kernel, kernel),
            (stride, stride),
            conv_general_dilated=FORMS[self.convolution],
            **self._layer(last) | settings,
        )
        return layer(x)

    def dense(self, features, x, last=None, **settings):
        """Flattens a map first."""
        return nn.Dense(features, **self._layer(last) | settings)(x.reshape(x.shape[0], -1))

    def _layer(self, last):
        normal = nn.initializers.normal(self.init_std)
        return {
            'name': last,
            'dtype': jnp.bfloat16 if self.dtype == 'bfloat16' and not last else None,
            'kernel_init': normal if self.init_std else nn.initializers.lecun_normal(),
        }

    def residual(self, features, stride, x):
        """The activation of `x + conv(activation(conv(x)))`, both pooled.

        If the number of features changes, x is mapped to it by a 1 x 1 kernel.
        """
        pool = lambda x: nn.avg_pool(x, (stride, stride), (stride, stride)) if stride > 1 else x
        inner = self.activate(self.conv(features, 3, 1, x))
        inner = pool(self.conv(features, 3, 1, inner))
        x = pool(x)
        if x.shape[-1] != features:
            x = self.conv(features, 1, 1, x)
        return self.activate(x + inner)

    def bottom_up(self, layers, x, condition, dropout_keys=None):
        """The trunk of energy and encoder: from an image and its condition to features."""
        if condition is not None:
            x = jnp.concatenate([x, condition], axis=-1)
        for index, (kind, *sizes) in enumerate(layers):
            if kind == 'conv':
                x = self.activate(self.conv(*sizes, x))
            elif kind == 'res':
                x = self.residual(*sizes, x)
            elif kind == 'dense':
                x = self.activate(self.dense(*sizes, x))
            elif kind != 'dropout':
                raise ValueError(
                    f'a bottom-up table has conv, res, dense, dropout rows, got {kind!r}'
                )
            elif dropout_keys is not None:
                x = _dropout(fold_in(dropout_keys, index), x, *sizes)
        return x


def leaky_relu(x: chex.Array) -> chex.Array:
    """`x` where it is not negative, `0.2 x` elsewhere.

    On a TPU the slope is computed without a mask: masks take a sixth of a CIFAR-10 step on a v5e.
    """
    by_comparison = lambda x: jnp.where(x >= 0, jnp.ones_like(x), 0.2)
    by_sign = lambda x: jnp.clip(jnp.sign(x) + 1.0, 0.2, 1.0)
    x_now = jax.lax.stop_gradient(x)
    return x * jax.lax.platform_dependent(x_now, tpu=by_sign, default=by_comparison)


def silu(x: chex.Array) -> chex.Array:
    """`x · sigmoid(x)`, rounded once; by a tanh, on a CPU twice as fast as an exponential."""
    half = 0.5 * x.astype(np.promote_types(x.dtype, np.float32))
    return (half * (1.0 + jnp.tanh(half))).astype(x.dtype)


def _dropout(keys, x, rate):
    """Flax's dropout uses one key for the batch; here there is one key per chain."""
    share = np.float32(1.0 - rate)
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, share, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)


def cast_inner(params: chex.ArrayTree, dtype: str) -> chex.ArrayTree:
    """The energy's parameters, with those of the inner layers cast to the type of computation.

    Done once before a loop, this saves a GPU from casting every kernel in each iteration.
    """
    if dtype != 'bfloat16':
        return params
    inner = {name: layer for name, layer in params.items() if not name.startswith('energy')}
    return params | jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), inner)


class EnergyNet(Network):
    """f(x), `[B]`: the network part of the energy, its `num_outputs` outputs summed."""

    layers: tuple
    num_outputs: int = 1

    @nn.compact
    @mixes_types
    def __call__(self, x: chex.Array, condition: chex.Array | None = None) -> chex.Array:
        features = self.bottom_up(self.layers, x, condition)
        return jnp.sum(self.dense(self.num_outputs, features, last='energy'), axis=-1)


class PatchCritic(Network):
    """A map of outputs for each scale of an image: each is of one patch, not of the whole image.

    The critic of P. Isola et al., Image-to-image translation with conditional adversarial networks,
    2017 (PatchGAN): conv and res rows, then a convolution of kernel 4 to one number. Its maps have
    as many places as the last row's, since all rows pad by "SAME"; the authors pad by 1, so a last
    row of stride 1 and the convolution after it lose a row and a column each. No norm.

    Attributes:
      layers: the table; each scale has its own parameters.
      num_scales: the second scale is the image's means over 2 x 2 pixels, and so on.
      reads_condition: whether it is given the condition, too.
    """

    layers: tuple
    num_scales: int = 1
    reads_condition: bool = True

    def __call__(self, x: chex.Array, condition: chex.Array | None = None) -> chex.Array:
        """The mean of a map, over the scales, `[B]`."""
        return patch_mean(self.maps(x, condition))

    @nn.compact
    @mixes_types
    def maps(self, x: chex.Array, condition: chex.Array | None = None) -> tuple[chex.Array, ...]:
        """`[B, h, w]` for each scale, the finest first."""
        if self.reads_condition and condition is not None:
            x = jnp.concatenate([x, condition], axis=-1)
        maps = []
        for scale in range(self.num_scales):
            if scale:
                x = nn.avg_pool(x, (2, 2), (2, 2), 'SAME', count_include_pad=False)
            features = self.bottom_up(self.layers, x, None)
            last = f'energy_{scale}' if scale else 'energy'
            maps.append(self.conv(1, 4, 1, features, last=last)[..., 0])
        return tuple(maps)


def patch_mean(maps: Sequence[chex.Array]) -> chex.Array:
    """The mean of each map `[B, h, w]`, averaged over the maps, `[B]`."""
    return sum(jnp.mean(each, axis=(1, 2)) for each in maps) / len(maps)


class Encoder(Network):
    """The inference model π_β(z|x): mean and log standard deviation, `[B, latent_dim]` each.

    The variance is `exp(h)` of a head h, as the authors', up to the prior's, 1, and `1 + h` above:
    one unusual image with an h of 100 would overflow the rate, and then every parameter.
    """

    layers: tuple
    latent_dim: int

    @nn.compact
    @mixes_types
    def __call__(
        self,
        x: chex.Array,
        condition: chex.Array | None = None,
        dropout_keys: chex.PRNGKey | None = None,
    ) -> tuple[chex.Array, chex.Array]:
        """With `dropout_keys`, one per chain, the dropout rows are active."""
        features = self.bottom_up(self.layers, x, condition, dropout_keys)
        mean = self.dense(self.latent_dim, features, last='mean')
        head = self.dense(self.latent_dim, features, last='log_variance')
        log_variance = jnp.where(head > 0, jnp.log1p(jnp.maximum(head, 0.0)), head)
        return mean, 0.5 * log_variance


class Decoder(Network):
    """The generator g_α(z): images `[B, H, W, C]`, bounded by `limit` if `output` is tanh.

    In place of the authors' batch norm, which uses batch statistics also in sampling, this has
    group norm: it has no state, and no image depends on others of its batch or device. In place of
    their transposed convolutions, whose weight gradient costs 65 times the forward pass on a CPU
    and which leave a checkerboard, this has the `up` rows. The first map is as small as the `up`
    rows allow; the result is cropped to size (28 pixels from 4: 8, 16, 32, 28).

    With a condition the images are the initial fill plus a residual; observed pixels are kept. A
    table that begins with `down` rows is a U-Net: they read the condition, each `up` row's map is
    concatenated with the `down` map of its size, and z scales and shifts the features of every row;
    with `modulated` it also does so in other tables.
    """

    layers: tuple
    image_shape: tuple[int, int, int]
    norm: str = 'group'
    output: str = 'tanh'
    limit: float = 1.0
    modulated: bool = False

    @nn.compact
    @mixes_types
    def __call__(self, z: chex.Array, condition: chex.Array | None = None) -> chex.Array:
        height, width, channels = self.image_shape
        is_unet = any(kind == 'down' for kind, *_ in self.layers)
        num_ups = sum(kind == 'up' for kind, *_ in self.layers)
        first = [-(-size // 2**num_ups) for size in (height, width)]
        x, skips = z, []
        if is_unet:
            x = condition
        elif condition is not None:
            x = jnp.concatenate([z, condition.reshape(z.shape[0], -1)], axis=-1)
        for kind, features, *sizes in self.layers:
            if kind == 'dense':
                x = self.dense(features, x)
            elif kind == 'map':
                x = self.dense(first[0] * first[1] * features, x).reshape(-1, *first, features)
            elif kind == 'down':
                skips.append(x)
                x = self.conv(features, *sizes, 2, x)
            elif kind == 'up':
                x = depth_to_space(self.conv(4 * features, *sizes, 1, x))
            elif kind == 'conv':
                x = self.conv(features, *sizes, 1, x)
            else:
                raise ValueError(
                    f'a decoder table has dense, map, down, up and conv rows, got {kind!r}'
                )
            x = self.normalize(x)
            is_modulated = is_unet or (self.modulated and x.ndim == 4)
            x = self.activate(self.modulate(x, z) if is_modulated else x)
            if kind == 'up' and skips:
                skip = skips.pop()
                x = jnp.concatenate([x[:, : skip.shape[1], : skip.shape[2]], skip], axis=-1)
        # An untrained conditional decoder returns the initial fill.
        last = {} if condition is None else {'kernel_init': nn.initializers.zeros}
        if x.ndim == 2:
            x = self.dense(height * width * channels, x, last='image', **last)
            x = x.reshape(-1, *self.image_shape)
        else:
            top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
            x = x[:, top : top + height, left : left + width]
            x = self.conv(channels, 3, 1, x, last='image', **last)
        if condition is None:
            return self.limit * jnp.tanh(x) if self.output == 'tanh' else x
        return keep_observed(fill_of(condition) + x, condition)

    def modulate(self, x, z):
        """Each feature of a map times `1 + scale(z)`, plus `shift(z)`."""
        # At first z has no effect: features with random modulation are slow to learn from.
        heads = self.dense(2 * x.shape[-1], z, kernel_init=nn.initializers.zeros)
        scale, shift = jnp.split(heads, 2, axis=-1)
        return x * (1.0 + scale[:, jnp.newaxis, jnp.newaxis]) + shift[:, jnp.newaxis, jnp.newaxis]

    def normalize(self, x):
        """Group norm of maps; dense layers have none."""
        if self.norm == 'none' or x.ndim == 2:
            return x
        dtype = jnp.bfloat16 if self.dtype == 'bfloat16' else None
        return nn.GroupNorm(min(8, x.shape[-1]), dtype=dtype)(x)
