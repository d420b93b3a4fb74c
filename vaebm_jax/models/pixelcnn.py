"""The gated PixelCNN: a network whose output at a value of an image reads only earlier values.

The order is by rows, in a row by pixels, in a pixel by channels. Its table has the rows

    ('gated', features, kernel)   a layer of both stacks; the kernel is odd, at least two such rows
    ('dense', features)           a layer on each pixel by itself, activation

The *vertical* stack reads the rows above, by whole kernels. The *horizontal* stack reads the
vertical one and, by masked kernels, what is to the left in the row and the earlier channels of the
pixel. So there is no blind spot, which one stack of masked kernels has (A. van den Oord et
al., Conditional image generation with PixelCNN decoders, 2016).
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vaebm_jax.models.convolution import FORMS
from vaebm_jax.models.networks import Network, mixes_types

NUM_LEVELS = 256  # Of 8 bits.


def mask(
    kernel: tuple[int, int], inputs: np.ndarray, outputs: np.ndarray, strict: bool = False
) -> np.ndarray:
    """The mask `[h, w, I, O]` of a kernel that reads earlier values only, 1 where it reads.

    It reads the rows above the middle one, of the middle row what is left of the middle, and in the
    middle the inputs of an earlier channel or, unless `strict`, of the output's own.

    Args:
      kernel: its odd sizes, h and w.
      inputs: `[I]`, the channel of the image to which each input belongs.
      outputs: `[O]`, the same of each output.
      strict: of a first layer, whose inputs are the image itself.
    """
    height, width = kernel
    row, column = np.ogrid[:height, :width]
    is_before = (row < height // 2) | ((row == height // 2) & (column < width // 2))
    is_middle = (row == height // 2) & (column == width // 2)
    inputs, outputs = inputs[:, np.newaxis], outputs[np.newaxis]
    may_read = inputs < outputs if strict else inputs <= outputs
    is_before, is_middle = (place[..., np.newaxis, np.newaxis] for place in (is_before, is_middle))
    return np.float32(is_before | (is_middle & may_read))


def channels_of(num_features: int, num_channels: int) -> np.ndarray:
    """The channel of the image to which each feature belongs, in turns: `[num_features]`."""
    return np.arange(num_features) % num_channels


def _gate(x):
    """`tanh(a) * sigmoid(b)` of both halves of the features."""
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


class _Stack(Network):
    """A stack of the table's gated layers."""

    layers: tuple

    def gated(self):
        return [sizes for kind, *sizes in self.layers if kind == 'gated']

    def convolve(self, x, features, kernel=(1, 1), padding='SAME', last=None, mask=None):
        layer = nn.Conv(
            features,
            kernel,
            padding=padding,
            mask=mask,
            conv_general_dilated=FORMS[self.convolution],
            **self._layer(last),
        )
        return layer(x)


class _Vertical(_Stack):
    """For each gated layer, what the rows above add to a row's gates: `[B, H, W, 2 features]`."""

    @nn.compact
    @mixes_types
    def __call__(self, x):
        above = []
        for features, kernel in self.gated():
            half = kernel // 2
            padding = ((half, 0), (half, half))  # The kernel ends with the row itself.
            wide = self.convolve(x, 2 * features, (half + 1, kernel), padding)
            x = wide + self.convolve(x, 2 * features)
            down = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
            above.append(self.convolve(down, 2 * features))
            x = _gate(x)
        return tuple(above)


class _Horizontal(_Stack):
    """The outputs `[B, R, W, C, num_outputs]` of R rows, each from itself and the rows above."""

    num_outputs: int

    @nn.compact
    @mixes_types
    def __call__(self, x, above, tau=None):
        num_channels = x.shape[-1]
        channels = np.arange(num_channels)

        def masked(x, inputs, outputs, kernel=(1, 1), last=None, strict=False):
            reads = mask(kernel, inputs, outputs, strict)
            return self.convolve(x, len(outputs), kernel, last=last, mask=reads)

        inputs, head = channels, 0.0
        for index, (features, kernel) in enumerate(self.gated()):
            own = channels_of(features, num_channels)
            halves = np.tile(own, 2)
            gates = masked(x, inputs, halves, (1, kernel), strict=index == 0) + above[index]
            if tau is not None:
                gates += masked(tau, channels, halves)
            gated = _gate(gates)
            more = masked(gated, own, own)
            if index:
                x, head = x + more, head + masked(gated, own, own)
            else:
                x = more
            inputs = own
        x = self.activate(head)
        for features in (sizes[0] for kind, *sizes in self.layers if kind == 'dense'):
            own = channels_of(features, num_channels)
            x, inputs = self.activate(masked(x, inputs, own)), own
        x = masked(x, inputs, np.repeat(channels, self.num_outputs), last='last')
        return x.reshape(*x.shape[:3], num_channels, self.num_outputs)


class PixelCNN(Network):
    """`num_outputs` numbers for each value of an image, from earlier values: `[B, H, W, C, N]`.

    Attributes:
      layers: the table.
      num_outputs: N: K logits of K levels, or 1 quantile.
      reads_tau: each value's outputs also read a number in (0, 1), `tau`, and those of earlier
        values.
    """

    layers: tuple
    num_outputs: int
    reads_tau: bool = False

    def setup(self):
        names = ('activation', 'dtype', 'init_std', 'convolution')
        common = {name: getattr(self, name) for name in names}
        self.vertical = _Vertical(self.layers, **common)
        self.horizontal = _Horizontal(self.layers, self.num_outputs, **common)

    def __call__(
        self, x: chex.Array, condition: None = None, tau: chex.Array | None = None
    ) -> chex.Array:
        """The outputs for images `[B, H, W, C]`; `tau` is `[B, H, W, C]`, None: 1/2 everywhere."""
        del condition  # There is none.
        if self.reads_tau and tau is None:
            tau = jnp.full_like(x, 0.5)
        return self.rows(x, self.rows_above(x), tau)

    def rows_above(self, x: chex.Array) -> tuple[chex.Array, ...]:
        """For each gated layer, what the rows above add to each row: `[B, H, W, 2 features]`."""
        return self.vertical(x)

    def rows(
        self, x: chex.Array, above: tuple[chex.Array, ...], tau: chex.Array | None = None
    ) -> chex.Array:
        """The outputs for some rows `[B, R, W, C]`, by these rows of `rows_above` and of `tau`."""
        return self.horizontal(x, above, tau)
