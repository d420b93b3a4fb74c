"""Grids of images."""

import io
import os
from typing import NamedTuple

import chex
import numpy as np
from PIL import Image, ImageDraw

from vaebm_jax.config import Config
from vaebm_jax.data.batch import to_uint8
from vaebm_jax.methods import sample_stages
from vaebm_jax.runtime.atomic_files import write_atomically

_CAPTION_HEIGHT = 16
_MIN_IMAGE_SIZE = 56  # Pixels: smaller images are enlarged by a whole factor.
_GAP = 16
_LINE = 6  # Between the images of a grid.


class Picture(NamedTuple):
    """The caption of a picture.

    Attributes:
      caption: for any method, with its stages as {stages}; '': there is no such picture without an
        energy.
      more: added for methods with an energy.
      mode: of the command line, which draws it.
      roles: there is no such picture if the method lacks one of these.
    """

    caption: str
    more: str = ''
    mode: str = 'sample'
    roles: tuple[str, ...] = ()


def shown(images: chex.Array) -> chex.Array:
    """Images `[..., H, W, C]` of 1 or 3 channels; others' channels side by side, in grey."""
    *rest, height, width, channels = images.shape
    if channels in (1, 3):
        return images
    return np.swapaxes(images, -1, -2).reshape(*rest, height, channels * width, 1)


def grid(images: chex.Array) -> Image.Image:
    """`[N, H, W, C]` images as the largest square grid that they fill."""
    side = int(np.sqrt(len(images)))
    return table(images[: side * side].reshape(side, side, *images.shape[1:]))


def table(images: chex.Array) -> Image.Image:
    """`[R, N, H, W, C]` images as R rows, each as `shown`."""
    images = shown(to_uint8(images))
    num_rows, num_columns = images.shape[:2]
    factor = -(-_MIN_IMAGE_SIZE // images.shape[2])
    images = images.repeat(factor, 2).repeat(factor, 3)
    lines = ((0, 0), (0, 0), (0, _LINE), (0, _LINE), (0, 0))
    images = np.pad(images, lines, constant_values=128)
    _, _, height, width, channels = images.shape
    images = images.swapaxes(1, 2).reshape(num_rows * height, num_columns * width, channels)
    return Image.fromarray(images[..., 0] if channels == 1 else images).convert('RGB')


def captions(config: Config) -> list[str]:
    """A caption for each stage of the method's samples, in the order of `generate_by`."""
    return list(sample_stages(config).values())


def side_by_side(path: str | os.PathLike, grids: dict[str, chex.Array]) -> None:
    """Writes captioned images, left to right, as one PNG: grids, or tables of `[R, N, ...]`."""
    parts = {
        caption: (grid if images.ndim == 4 else table)(images) for caption, images in grids.items()
    }
    width = sum(part.width for part in parts.values()) + _GAP * (len(parts) - 1)
    height = max(part.height for part in parts.values()) + _CAPTION_HEIGHT
    picture = Image.new('RGB', (width, height), 'white')
    left = 0
    for caption, part in parts.items():
        ImageDraw.Draw(picture).text((left + 2, 2), caption, fill='black')
        picture.paste(part, (left, _CAPTION_HEIGHT))
        left += part.width + _GAP
    content = io.BytesIO()
    picture.save(content, 'PNG')
    write_atomically(path, content.getvalue())


def save(path: str | os.PathLike, image: chex.Array) -> None:
    """Writes one image `[H, W, C]` as a PNG of the same size, as `shown`."""
    pixels = shown(to_uint8(image))
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(content, 'PNG')
    write_atomically(path, content.getvalue())
