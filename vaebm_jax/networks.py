"""The three networks, each built from a table of layers.

A table is a tuple of rows; `config.NetworkConfig` says what may stand in it:

    ('conv', features, kernel, stride)   convolution, zero padding ("SAME"), activation
    ('dense', features)                  flattens a map; dense layer, activation
    ('map', features)                    decoder: dense layer to its first, smallest map
    ('up', features, kernel)             decoder: twice the size, by a convolution to four times
                                         the features and depth-to-space
    ('dropout', rate)                    encoder, while it learns

The activation is a leaky ReLU of slope 0.2. Parameters are float32. With `dtype='bfloat16'` the
inner layers compute in it; what a layer's result is summed to a number or a pixel by (the
energy's last layer, the encoder's heads, the decoder's last layer) stays in float32.
"""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from vaebm_jax.convolution import conv, depth_to_space

_LEAK = 0.2


def _activate(x):
    return nn.leaky_relu(x, _LEAK)


def _kernel_init(init_std):
    return nn.initializers.normal(init_std) if init_std else nn.initializers.lecun_normal()


def _dtype(dtype):
    """None lets a layer compute in its parameters' own type."""
    return jnp.bfloat16 if dtype == 'bfloat16' else None


def _flatten(x):
    return x.reshape(x.shape[0], -1)


def _conv(features, kernel, stride, dtype, init_std):
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        dtype=dtype,
        kernel_init=_kernel_init(init_std),
        conv_general_dilated=conv,
    )


def _dropout(keys, x, share):
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - share, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1.0 - share), 0.0).astype(x.dtype)


def _bottom_up(layers, x, condition, keys, dtype, init_std):
    """The trunk of energy and encoder: an image, with its condition's channels, to features."""
    if condition is not None:
        x = jnp.concatenate([x, condition], axis=-1)
    for index, (kind, *sizes) in enumerate(layers):
        if kind == 'conv':
            x = _activate(_conv(*sizes, dtype, init_std)(x))
        elif kind == 'dense':
            (features,) = sizes
            x = nn.Dense(features, dtype=dtype, kernel_init=_kernel_init(init_std))(_flatten(x))
            x = _activate(x)
        elif kind == 'dropout':
            if keys is not None:
                layer_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
                x = _dropout(layer_keys, x, *sizes)
        else:
            raise ValueError(f'a bottom-up table has conv, dense and dropout rows, got {kind!r}')
    return _flatten(x)


class EnergyNet(nn.Module):
    """f(x), `[B]`: the network part of the energy, its `num_outputs` outputs summed."""

    layers: tuple
    num_outputs: int = 1
    dtype: str = 'float32'
    init_std: float = 0.0

    @nn.compact
    def __call__(self, x: chex.Array, condition: chex.Array | None = None) -> chex.Array:
        features = _bottom_up(self.layers, x, condition, None, _dtype(self.dtype), self.init_std)
        outputs = nn.Dense(self.num_outputs, kernel_init=_kernel_init(self.init_std))(features)
        return jnp.sum(outputs, axis=-1)


class Encoder(nn.Module):
    """The inference model π_β(z|x): mean and log standard deviation, `[B, d]` each."""

    layers: tuple
    latent_dim: int
    dtype: str = 'float32'
    init_std: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: chex.Array,
        condition: chex.Array | None = None,
        dropout_keys: chex.PRNGKey | None = None,
    ) -> tuple[chex.Array, chex.Array]:
        """`dropout_keys`, one a chain, switch the dropout rows on; without them there is none."""
        features = _bottom_up(
            self.layers, x, condition, dropout_keys, _dtype(self.dtype), self.init_std
        )
        mean = nn.Dense(self.latent_dim, kernel_init=_kernel_init(self.init_std), name='mean')
        log_var = nn.Dense(
            self.latent_dim, kernel_init=_kernel_init(self.init_std), name='log_variance'
        )
        return mean(features), 0.5 * log_var(features)


class Decoder(nn.Module):
    """The generator g_α(z): images `[B, H, W, C]` in (-1, 1).

    Where the authors have batch norm with batch statistics, also when they sample, this has group
    norm: it keeps no state, and no image depends on the others of its batch or device. Where they
    have transposed convolutions, whose weight gradient costs 65 times the forward pass on a CPU
    and which leave a checkerboard, this has the `up` rows. The first map is as small as the `up`
    rows allow; what they then overshoot is cropped (28 pixels from 4: 8, 16, 32, 28).
    """

    layers: tuple
    image_shape: tuple[int, int, int]
    norm: str = 'group'
    dtype: str = 'float32'
    init_std: float = 0.0

    @nn.compact
    def __call__(self, z: chex.Array, condition: chex.Array | None = None) -> chex.Array:
        height, width, channels = self.image_shape
        dtype, init = _dtype(self.dtype), _kernel_init(self.init_std)
        if condition is not None:
            z = jnp.concatenate([z, _flatten(condition)], axis=-1)
        num_ups = sum(kind == 'up' for kind, *_ in self.layers)
        first = [-(-size // 2**num_ups) for size in (height, width)]
        x = z
        for kind, features, *sizes in self.layers:
            if kind == 'dense':
                x = _activate(nn.Dense(features, dtype=dtype, kernel_init=init)(_flatten(x)))
            elif kind == 'map':
                x = nn.Dense(first[0] * first[1] * features, dtype=dtype, kernel_init=init)(x)
                x = _activate(self._norm(x.reshape(-1, *first, features)))
            elif kind == 'up':
                x = _conv(4 * features, *sizes, 1, dtype, self.init_std)(x)
                x = _activate(self._norm(depth_to_space(x)))
            elif kind == 'conv':
                x = _activate(self._norm(_conv(features, *sizes, dtype, self.init_std)(x)))
            else:
                raise ValueError(f'a decoder table has dense, map, up and conv rows, got {kind!r}')
        if x.ndim == 2:
            x = nn.Dense(height * width * channels, kernel_init=init)(x)
            x = x.reshape(-1, *self.image_shape)
        else:
            top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
            x = x[:, top : top + height, left : left + width]
            x = _conv(channels, 3, 1, None, self.init_std)(x)
        return jnp.tanh(x)

    def _norm(self, x):
        if self.norm == 'none':
            return x
        return nn.GroupNorm(num_groups=min(8, x.shape[-1]), dtype=_dtype(self.dtype))(x)
