"""Batches: from 8-bit images to pixels in [-1, 1], and back."""

import functools

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax.config import Config, DataConfig
from vaebm_jax.data.sources import density_of
from vaebm_jax.samplers.arguments import check_floats
from vaebm_jax.samplers.keys import chain_keys


@flax.struct.dataclass
class Batch:
    """Images, and their condition if the model is conditional.

    Attributes:
      image: `[B, H, W, C]`, pixels in [-1, 1]; with `data.headroom` h black is -1 - h, white 1 + h.
      condition: `[B, H, W, K]`, or None.
    """

    image: chex.Array
    condition: chex.Array | None = None


def make_batch(
    key: chex.PRNGKey, images: chex.Array, data: DataConfig, first: chex.Numeric = 0
) -> Batch:
    """From 8 bits to [-1, 1]: x / 127.5 - 1, with the config's crops, flips, noise and headroom.

    Floating-point images, which are in [-1, 1] already, are mirrored alone; points are returned
    unchanged.

    Args:
      key: this iteration's.
      images: `[B, H, W, C]` uint8, of size `data.load_size` if it is set; or float32, also points.
      data: the transformations.
      first: the index of the first image in the global batch, from which the keys follow.
    """
    data.freeze()
    is_float = jnp.issubdtype(images.dtype, jnp.floating)
    if is_float and not data.flip:
        return Batch(images)
    keys = chain_keys(key, images.shape[0], first)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
    if images.shape[1] > data.image_size:
        crop = functools.partial(_random_crop, size=data.image_size)
        images = jax.vmap(crop)(keys[:, 2], images)
    if data.flip:
        is_flipped = jax.vmap(lambda key: jax.random.bernoulli(key, np.float32(0.5)))(keys[:, 0])
        images = jnp.where(is_flipped[:, None, None, None], images[:, :, ::-1], images)
    if is_float:
        return Batch(images)
    image = images.astype(jnp.float32)
    if data.dequantize:
        shape = images.shape[1:]
        noise = jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32))(keys[:, 1])
        image = (image + noise) / 128.0 - 1.0
    else:
        image = image / 127.5 - 1.0
    return Batch(image + beyond_ends(images, data.headroom, jnp.float32))


def _random_crop(key, image, size):
    corner = jax.random.randint(key, (2,), 0, image.shape[0] - size + 1, jnp.int32)
    return jax.lax.dynamic_slice(image, (*corner, np.int32(0)), (size, size, image.shape[-1]))


def as_pixels(images: np.ndarray, headroom: float = 0.0) -> np.ndarray:
    """uint8 images as float32 in [-1, 1], with headroom; float32 is returned unchanged."""
    if np.issubdtype(images.dtype, np.floating):
        return images
    return np.asarray(images / 127.5 - 1.0 + beyond_ends(images, headroom), np.float32)


def beyond_ends(
    images: chex.Array, headroom: float, dtype: chex.ArrayDType = np.float64
) -> chex.Array:
    """Offset of saturated pixels: 0 becomes -1 - headroom and 255 becomes 1 + headroom."""
    return headroom * ((images == 255).astype(dtype) - (images == 0).astype(dtype))


def check_batch(batch: Batch) -> None:
    """Raises a TypeError or ValueError unless it is a Batch of one or more images."""
    if not isinstance(batch, Batch):
        raise TypeError(f'batch must be a Batch, such as Batch(images), got {type(batch).__name__}')
    check_images('batch.image', batch.image)
    if batch.condition is not None and len(batch.condition) != len(batch.image):
        raise ValueError(
            f'batch.condition must have a row for each of the {len(batch.image)} images, got shape '
            f'{batch.condition.shape}'
        )


def check_images(name: str, images: chex.Array) -> None:
    """Raises a TypeError or ValueError unless it has one or more images as models take them."""
    check_floats(name, images)
    if images.ndim != 4 or not images.size:
        raise ValueError(
            f'{name} must be one or more images [B, H, W, C] with pixels in [-1, 1], got shape '
            f'{images.shape}'
        )


def to_uint8(images: chex.Array, config: Config | None = None) -> np.ndarray:
    """Images, clipped to [-1, 1], as 0 to 255: as the pictures of a run have them.

    Refined samples reach beyond [-1, 1]; with `data.headroom` h black is -1 - h and white 1 + h.

    Args:
      images: `[..., H, W, C]`, such as samples of `generate`.
      config: of their run; None: the shape is not checked.

    Raises:
      TypeError: unless they are floating-point numbers.
      ValueError: unless they have the shape of the run's images; also for points of the plane.
    """
    check_floats('images', images)
    if config is not None:
        size, channels = config.data.image_size, config.data.num_channels
        if density_of(config.data):
            raise ValueError(f'images must be images, but those of {config.data.name} are points')
        if images.shape[-3:] != (size, size, channels):
            raise ValueError(
                f'images must be of shape [..., {size}, {size}, {channels}], as those of config, '
                f'got shape {images.shape}'
            )
    images = np.clip(np.asarray(images, np.float32), -1.0, 1.0)
    return np.round((images + 1.0) * 127.5).astype(np.uint8)
