"""The gated PixelCNN (A. van den Oord et al., Conditional image generation with PixelCNN decoders,
2016): an image's values one after another, each from a softmax over its 256 levels.

It gives the exact likelihood of images of 8 bits. There is no public code of the authors: layers
are as in later implementations (a skip connection of each layer to the head, a 1x1 kernel beside
each vertical one). Chosen here: Adam and initial kernels as configured, the activation of
`network.activation` in the head, no dropout, and groups of features by channel in turns.
"""

from collections.abc import Callable, Iterator

import chex
import jax
import jax.numpy as jnp
from jax import lax

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.data.sources import density_of
from vaebm_jax.methods.losses import bits
from vaebm_jax.methods.needs import no_condition
from vaebm_jax.methods.parts import Metrics, learn
from vaebm_jax.models.pixelcnn import NUM_LEVELS
from vaebm_jax.models.states import States, TrainState
from vaebm_jax.samplers.keys import fold_in

_UNIT = (NUM_LEVELS - 1) / 2  # Levels in a unit of pixels.


def image_bits(likelihood: TrainState, images: chex.Array) -> chex.Array:
    """The exact negative log-likelihood of images of 8 bits, in bits per dimension, `[B]`."""
    levels = jnp.round((images + 1.0) * _UNIT).astype(jnp.int32)
    return bits(likelihood.apply_fn({'params': likelihood.params}, images), levels)


def pixelcnn_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """One step of maximum likelihood; arguments and results are those of `vaebm.train_step`."""
    del key  # Nothing is random.

    def loss_fn(models):
        loss = jnp.mean(image_bits(models['likelihood'], batch.image))
        return loss, {'bits_per_dim': loss}

    models = {'likelihood': states.models['likelihood']}
    models, metrics = learn(models, loss_fn, config, axis_name)
    return states.advance(**models), metrics


def sample(
    keys: tuple[chex.PRNGKey, chex.PRNGKey],
    states: States,
    config: Config,
    num_samples: int,
    condition: chex.Array | None = None,
) -> dict[str, chex.Array]:
    """Ancestral samples: `sample` in METHODS. A value is drawn by its image's key and its index."""
    del num_samples, condition

    def draw(logits, index):
        levels = jax.vmap(jax.random.categorical)(fold_in(keys[1], index), logits)
        return levels / _UNIT - 1.0

    return {'ancestral': one_by_one(states.models['likelihood'], config, len(keys[1]), draw)}


def scores(
    keys: chex.PRNGKey, states: States, config: Config, images: chex.Array
) -> dict[str, chex.Array]:
    """Of each image, `[N]`: `scores` in METHODS."""
    del keys, config
    return {'bits_per_dim': image_bits(states.models['likelihood'], images)}


def needs_images(config: Config) -> Iterator[tuple[str, str]]:
    """Yields what is wrong for a method that draws all values of an image: `needs` in METHODS."""
    if density_of(config.data):
        yield 'data.name', f'a set of images for {config.method}'
    yield from no_condition(config)


def needs(config: Config) -> Iterator[tuple[str, str]]:
    """Yields what is wrong for a likelihood of exact values: `needs` in METHODS."""
    yield from needs_images(config)
    exact = f'for {config.method}, which learns the exact values of 8 bits'
    if config.data.dequantize:
        yield 'data.dequantize', f'False {exact}'
    if config.data.headroom:
        yield 'data.headroom', f'0 {exact}'


def one_by_one(
    model: TrainState,
    config: Config,
    num_samples: int,
    draw: Callable[[chex.Array, chex.Array], chex.Array],
    tau: chex.Array | None = None,
) -> chex.Array:
    """Images `[B, H, W, C]` of a `models.pixelcnn.PixelCNN`, value after value.

    The vertical stack is computed once a row, the horizontal one for the row of each value.

    Args:
      model: the network.
      config: of the images.
      num_samples: B.
      draw: from the outputs `[B, N]` for a value, and its index, to the value in each image, `[B]`.
      tau: what the network also reads, `[B, H, W, C]`, or None.
    """
    size, num_channels = config.data.image_size, config.data.num_channels
    apply = lambda *inputs, method: model.apply_fn({'params': model.params}, *inputs, method=method)

    def draw_row(index, images):
        of_row = lambda maps: lax.dynamic_slice_in_dim(maps, index, 1, axis=1)
        above = apply(images, method='rows_above')
        above, tau_of_row = jax.tree.map(of_row, (above, tau))

        def draw_value(place, row):
            outputs = apply(row, above, tau_of_row, method='rows')
            column, channel = jnp.divmod(place, num_channels)
            value = draw(outputs[:, 0, column, channel], index * size * num_channels + place)
            return row.at[:, 0, column, channel].set(value.astype(row.dtype))

        row = lax.fori_loop(0, size * num_channels, draw_value, of_row(images))
        return lax.dynamic_update_slice_in_dim(images, row, index, axis=1)

    images = jnp.zeros((num_samples, size, size, num_channels), jnp.float32)
    return lax.fori_loop(0, size, draw_row, images)
