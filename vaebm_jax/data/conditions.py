"""Conditions: the observed part of an image, and an initial fill of the rest without learning.

A condition is `[B, H, W, C + 1]`: C channels of the *initial fill* and one of the *mask*, 1 where a
pixel is observed. There the fill is the pixel itself. Elsewhere it is the harmonic fill, the
smoothest surface that meets the observed pixels. Of a grey or a small image the fill is that image,
and the mask is 0 everywhere, since no pixel is known exactly. Networks read both and predict the
residual.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax.config import CHOICES, ConditionConfig, Config, flatten
from vaebm_jax.data.batch import check_images
from vaebm_jax.data.harmonic_fill import edge_profiles, fill_rectangles, harmonic_fill
from vaebm_jax.samplers.keys import chain_keys

_NUM_STROKES = 4
_CORNERS = 6  # Of a stroke.


def make_condition(
    key: chex.PRNGKey, image: chex.Array, config: ConditionConfig, first: chex.Numeric = 0
) -> chex.Array | None:
    """The condition of images, `[B, H, W, C + 1]`; None where the kind is none.

    Args:
      key: one key, from which image i draws by `first + i`; or `[B]` keys, one per image.
      image: `[B, H, W, C]`, pixels in [-1, 1].
      config: the kind of condition.
      first: the index of the first image in the global batch.
    """
    check_images('image', image)
    config.freeze()
    keys = chain_keys(key, len(image), first)
    return CONDITIONS[config.kind].make(keys, image, config)


def from_rectangles(
    image: chex.Array, corners: chex.Array, shape: tuple[int, int], profiles: float = 0.0
) -> chex.Array:
    """The condition of images `[B, H, W, C]` with a missing rectangle each, observed all around.

    Args:
      image: pixels in the rectangle are ignored.
      corners: `[B, 2]`, the first row and column of each rectangle.
      shape: rows and columns of all rectangles.
      profiles: factor of `edge_profiles` in the initial fill.
    """
    fill = fill_rectangles(image, corners, shape)
    is_observed = ~inside(corners, shape, image.shape[1:3])
    if profiles:
        behind = fill + profiles * edge_profiles(image, corners, shape)
        fill = jnp.where(is_observed[..., jnp.newaxis], fill, jnp.clip(behind, -1.0, 1.0))
    return join(fill, is_observed)


@functools.partial(jax.jit, static_argnames='config')
def fixed_condition(image: chex.Array, config: ConditionConfig) -> chex.Array:
    """The condition outside training: always the same for image i, and holes are not shifted."""
    return make_condition(jax.random.key(0), image, dataclasses.replace(config, jitter=0.0))


@jax.jit
def from_mask(image: chex.Array, is_observed: chex.Array) -> chex.Array:
    """The condition of images `[B, H, W, C]` and masks `[B, H, W]` bool, True where observed."""
    return join(harmonic_fill(image, is_observed), is_observed)


def join(fill: chex.Array, is_observed: chex.Array) -> chex.Array:
    """A condition from its initial fill and its mask."""
    return jnp.concatenate([fill, is_observed[..., jnp.newaxis].astype(fill.dtype)], axis=-1)


def fill_of(condition: chex.Array) -> chex.Array:
    """`[..., C]`: observed pixels, and the initial fill elsewhere."""
    return condition[..., :-1]


def observed_of(condition: chex.Array) -> chex.Array:
    """`[..., 1]` bool: the mask of observed pixels."""
    return condition[..., -1:] > 0.5


def keep_observed(x: chex.Array, condition: chex.Array | None) -> chex.Array:
    """`x` with the observed pixels restored, bit for bit."""
    return x if condition is None else jnp.where(observed_of(condition), fill_of(condition), x)


def to_gray(image: chex.Array) -> chex.Array:
    """The luminance of Rec. 601 in every channel."""
    if image.shape[-1] == 1:
        return image
    luminance = image @ jnp.array([0.299, 0.587, 0.114], image.dtype)
    return jnp.broadcast_to(luminance[..., jnp.newaxis], image.shape)


def to_low_resolution(image: chex.Array, factor: int) -> chex.Array:
    """Means over blocks of `factor` x `factor` pixels, resized bicubically to the image's size."""
    num_images, height, width, channels = image.shape
    small = (num_images, height // factor, factor, width // factor, factor, channels)
    return jax.image.resize(image.reshape(small).mean(axis=(2, 4)), image.shape, 'cubic')


def _center_hole(keys, image, config):
    shape, last = _hole(image, config)
    size = image.shape[1:3]
    center = (np.int32(size) - np.int32(shape)) // 2
    reach = np.round(np.float32(config.jitter) * np.float32(size)).astype(np.int32)
    draw = lambda key: jnp.clip(center + _offset(key, -reach, reach), 1, last)
    return from_rectangles(image, jax.vmap(draw)(keys), shape, config.edge_profiles)


def _random_hole(keys, image, config):
    shape, last = _hole(image, config)
    corners = jax.vmap(lambda key: _offset(key, 1, last))(keys)
    return from_rectangles(image, corners, shape, config.edge_profiles)


def _hole(image, config):
    """The rows and columns of a hole, and the last place for its corner.

    At least one observed pixel stays on each side of it.
    """
    size = image.shape[1:3]
    shape = tuple(min(max(1, round(config.hole_size * pixels)), pixels - 2) for pixels in size)
    return shape, np.int32(size) - np.int32(shape) - 1


def _offset(key, low, high):
    return jax.random.randint(key, (2,), low, high + 1, jnp.int32)


def _lower_half(keys, image, config):
    del keys, config
    height, width = image.shape[1:3]
    top = height // 2
    corners = jnp.tile(jnp.array([[top, 0]], jnp.int32), (len(image), 1))
    shape = (height - top, width)
    fill = fill_rectangles(image, corners, shape, ((True, False), (False, False)))
    return join(fill, ~inside(corners, shape, (height, width)))


def _free_form(keys, image, config):
    return from_mask(image, free_form(keys, image.shape[1:3], config.hole_size))


def _gray(keys, image, config):
    del keys, config
    return join(to_gray(image), jnp.zeros(image.shape[:3], bool))


def _low_resolution(keys, image, config):
    del keys
    return join(to_low_resolution(image, config.factor), jnp.zeros(image.shape[:3], bool))


def inside(corners: chex.Array, shape: tuple[int, int], size: tuple[int, int]) -> chex.Array:
    """`[B, H, W]` bool: the pixels of each image's rectangle."""

    lines = [jnp.arange(pixels, dtype=jnp.int32) for pixels in size]

    def one(corner):
        rows, columns = (
            (line >= start) & (line < start + length)
            for line, start, length in zip(lines, corner, shape, strict=True)
        )
        return rows[:, jnp.newaxis] & columns[jnp.newaxis]

    return jax.vmap(one)(corners)


def free_form(keys: chex.PRNGKey, size: tuple[int, int], side: float) -> chex.Array:
    """Masks `[B, H, W]` of brush strokes, True where observed.

    A few random polygonal lines, wide enough to cover the area of a square hole of that side.
    """
    height, width = size
    num_missing = min(max(1, round(side * height) * round(side * width)), height * width - 1)
    points = np.float32(np.stack(np.indices(size), axis=-1)).reshape(-1, 1, 2)

    def draw(key):
        key_start, key_way = jax.random.split(key)
        uniform = functools.partial(jax.random.uniform, dtype=jnp.float32)
        start = uniform(key_start, (_NUM_STROKES, 1, 2))
        ways = uniform(key_way, (_NUM_STROKES, _CORNERS - 1, 2), minval=-0.3, maxval=0.3)
        corners = jnp.cumsum(jnp.concatenate([start, ways], axis=1), axis=1)
        corners = jnp.clip(corners, 0.0, 1.0) * (np.float32([[size]]) - 1.0)
        begin, along = corners[:, :-1].reshape(1, -1, 2), jnp.diff(corners, axis=1)
        along = along.reshape(1, -1, 2)
        length = jnp.maximum(jnp.sum(along**2, -1), 1e-6)
        share = jnp.clip(jnp.sum((points - begin) * along, -1) / length, 0.0, 1.0)
        offset = points - begin - along * share[..., jnp.newaxis]
        distance = jnp.min(jnp.sum(offset**2, -1), axis=-1)
        rank = jnp.argsort(jnp.argsort(distance))  # Each pixel's, nearest first.
        return (rank >= num_missing).reshape(size)

    return jax.lax.map(draw, keys)


def of_mask(image: np.ndarray, is_observed: np.ndarray, config: ConditionConfig) -> np.ndarray:
    """The condition `[1, H, W, C + 1]` of one image: with edge profiles if a box is missing.

    Of another region the initial fill is harmonic.

    Args:
      image: `[H, W, C]`, pixels in [-1, 1]; missing ones are ignored.
      is_observed: `[H, W]` bool, any mask.
      config: of the models.
    """
    rows, columns = (np.flatnonzero((~is_observed).any(axis=axis)) for axis in (1, 0))
    shape = (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
    has_rim = all(
        line[0] > 0 and line[-1] < pixels - 1
        for line, pixels in zip((rows, columns), is_observed.shape, strict=True)
    )
    if has_rim and (~is_observed).sum() == shape[0] * shape[1]:
        corner = np.array([[rows[0], columns[0]]])
        return from_rectangles(image[None], corner, shape, config.edge_profiles)
    return from_mask(image[None], is_observed[None])


def _hole_needs(config):
    if config.data.image_size < 4:
        yield 'data.image_size', 'at least 4 where pixels are missing'


def _gray_needs(config):
    if config.data.num_channels != 3:
        yield 'data.num_channels', '3 where condition.kind is gray'


def _low_resolution_needs(config):
    size, factor = config.data.image_size, config.condition.factor
    if factor >= 2 and size % factor:
        yield 'condition.factor', f'a divisor of data.image_size = {size}'


class Condition(NamedTuple):
    """A kind of condition.

    Attributes:
      make: `(keys, image, config)`, one key per image, to the condition `[B, H, W, C + 1]` of
        images `[B, H, W, C]`, or to None; called while compiling.
      of_mask: `(image, is_observed, config)`, like the function `of_mask`: the condition of one
        image and a user's mask; None: no pixel is missing, and there are no masks.
      is_harmonic: whether the initial fill is harmonic, apart from edge profiles.
      is_centered: whether outside training the missing region is a rectangle in the middle.
      settings: the settings of `config.condition` that it uses, besides `updates`, which acts where
        pixels are missing.
      needs: `config -> (setting, what would be right)` for each setting that is wrong.
    """

    make: Callable[[chex.PRNGKey, chex.Array, ConditionConfig], chex.Array | None]
    of_mask: Callable[[np.ndarray, np.ndarray, ConditionConfig], chex.Array] | None = None
    is_harmonic: bool = False
    is_centered: bool = False
    settings: tuple[str, ...] = ()
    needs: Callable[[Config], Iterable[tuple[str, str]]] = lambda config: ()

    @property
    def hides_pixels(self) -> bool:
        """Whether some pixels are observed and others missing."""
        return self.of_mask is not None


_HOLE = ('hole_size', 'edge_profiles')  # The latter also for a box in a user's mask.
_hidden = functools.partial(Condition, of_mask=of_mask, is_harmonic=True, needs=_hole_needs)
CONDITIONS = {
    'none': Condition(lambda keys, image, config: None),
    'center_hole': _hidden(_center_hole, is_centered=True, settings=(*_HOLE, 'jitter')),
    'random_hole': _hidden(_random_hole, settings=_HOLE),
    'free_form': _hidden(_free_form, settings=_HOLE),
    'lower_half': _hidden(_lower_half, settings=('edge_profiles',)),
    'gray': Condition(_gray, needs=_gray_needs),
    'low_resolution': Condition(_low_resolution, needs=_low_resolution_needs, settings=('factor',)),
}

CHOICES['condition.kind'] = CONDITIONS


def idle_settings(config: Config) -> list[str]:
    """The settings of `config.condition` that are not at their default and do nothing."""
    row, defaults = CONDITIONS[config.condition.kind], flatten(ConditionConfig())
    used = ('kind', *row.settings, *(('updates',) if row.hides_pixels else ()))
    return [
        f'condition.{name}'
        for name, value in flatten(config.condition).items()
        if value != defaults[name] and name not in used
    ]
