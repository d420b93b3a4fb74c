"""Random changes of images, by which an energy of few images learns their kind, not each one.

Data and samples are changed alike before the energy learns from them, so it does not learn the
changes (S. Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, 2020). Chains
run on images as they are.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax.samplers.keys import fold_in


def flip(key: chex.PRNGKey, image: chex.Array) -> chex.Array:
    """Mirrors an image `[H, W, C]` left to right with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key, np.float32(0.5)), image[:, ::-1], image)


def shift(key: chex.PRNGKey, image: chex.Array) -> chex.Array:
    """Shifts an image by up to an eighth of its sides; pixels of the border are repeated."""
    height, width, _ = image.shape
    reach = jnp.array([height // 8, width // 8], jnp.int32)
    down, right = jax.random.randint(key, (2,), -reach, reach + 1, jnp.int32)
    rows = jnp.clip(jnp.arange(height, dtype=jnp.int32) - down, 0, height - 1)
    columns = jnp.clip(jnp.arange(width, dtype=jnp.int32) - right, 0, width - 1)
    return image[rows][:, columns]


def cutout(key: chex.PRNGKey, image: chex.Array) -> chex.Array:
    """Sets a square of half the image's sides to 0; it may reach over the border."""
    height, width, _ = image.shape
    key_row, key_column = jax.random.split(key)
    is_cut = lambda key, size: (
        jnp.abs(jnp.arange(size) - jax.random.randint(key, (), 0, size, jnp.int32)) * 4 <= size
    )
    square = is_cut(key_row, height)[:, None] & is_cut(key_column, width)[None, :]
    return jnp.where(square[..., None], jnp.zeros((), image.dtype), image)


AUGMENTATIONS = {'flip': flip, 'shift': shift, 'cutout': cutout}


def augment(
    keys: chex.PRNGKey,
    names: tuple[str, ...],
    images: chex.Array,
    condition: chex.Array | None = None,
) -> tuple[chex.Array, chex.Array | None]:
    """Images and their conditions, both changed in the same random way.

    Args:
      keys: one per image.
      names: of AUGMENTATIONS, applied in this order.
      images: `[B, H, W, C]`.
      condition: `[B, H, W, K]`, or None.
    """
    if not names:
        return images, condition
    channels = images.shape[-1]
    planes = images if condition is None else jnp.concatenate([images, condition], axis=-1)
    for index, name in enumerate(names):
        planes = jax.vmap(AUGMENTATIONS[name])(fold_in(keys, index), planes)
    return planes[..., :channels], None if condition is None else planes[..., channels:]
