"""Reads image files as they are found: of 8 or 16 bits, grey, coloured, with alpha, or damaged."""

import os

import numpy as np
from PIL import Image, ImageOps

from vaebm_jax.errors import UserError

# What Pillow raises at damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: str | os.PathLike, num_channels: int) -> Image.Image:
    """A file's image in 8 bits, grey (1 channel) or RGB (3).

    Of 16 bits the upper are taken, transparent pixels are laid on white, and a photograph is turned
    upright by the orientation that its camera noted.

    Raises:
      UserError: for a file that is no image, a damaged or truncated one, an animation, or one of 32
        bits a channel, whose range is not known.
    """
    try:
        with Image.open(path) as image:
            # Cameras put a preview behind a photograph (MPO): that is no animation.
            if getattr(image, 'n_frames', 1) > 1 and image.format != 'MPO':
                raise UserError(f'{path} is an animation of {image.n_frames} images, not one')
            if image.mode in ('I', 'F'):
                raise UserError(f'{path} has 32 bits a channel; 8 or 16 can be read')
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith('I;16'):
                image = Image.fromarray(np.uint8(np.asarray(image) >> 8))
            if image.has_transparency_data:
                image = image.convert('RGBA')
                ground = Image.new('RGBA', image.size, 'white')
                image = Image.alpha_composite(ground, image)
            return image.convert('L' if num_channels == 1 else 'RGB')
    except UserError:
        raise
    except _DAMAGED as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(f'{path} is not an image that can be read ({reason})') from error
