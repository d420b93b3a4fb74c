"""Reads image files of any kind: of 8 or 16 bits, grey, coloured, with alpha, or damaged."""

import io
import os
import pathlib
import struct
import zlib

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from vaebm_jax.runtime.errors import UserError

# EXIF orientation: the transformation that turns the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow scales grey values of 2 and 4 bits to 8, but not the transparent value.
_GREY_STEPS = {'L;2': 85, 'L;4': 17}
# Formats whose further pictures are previews or layers of the first.
_FIRST_IS_WHOLE = ('MPO', 'PSD')
_PNG = b'\x89PNG\r\n\x1a\n'


def read_image(path: str | os.PathLike, num_channels: int, white_level: int = 0) -> Image.Image:
    """A file's image in 8 bits, grey (1 channel) or RGB (3).

    Transparent pixels are composited on white, and a photograph is turned upright by its EXIF
    orientation. Damaged metadata is ignored. Of 16 bits the upper 8 are taken; or, with
    `white_level`, values from 0 to it are scaled to 0 to 255, and larger ones are white. Files that
    state a depth (PGM, JPEG 2000, TIFF of 12 bits) are scaled by that.

    Raises:
      UserError: for a file that is not an image, is damaged or truncated, holds several images, or
        has 32 bits per channel, whose range is not known.
    """
    return read_with_largest(path, num_channels, white_level)[0]


def read_with_largest(
    path: str | os.PathLike, num_channels: int, white_level: int = 0
) -> tuple[Image.Image, int | None]:
    """As `read_image`, with the largest value of a 16-bit file that states no other depth.

    For 16-bit colours the value is that of the upper 8 bits, with all lower bits set; for other
    files it is None.
    """
    return _read(path, lambda content: _decode(content, num_channels, white_level))


def read_opacity(path: str | os.PathLike) -> np.ndarray:
    """`[H, W]`, from 0 (transparent) to 255, of a file that `read_image` can read."""
    return _read(path, _decode_opacity)


def _read(path, decode):
    """`decode(content)` of a file; a UserError with its name for any error of a decoder."""
    try:
        content = pathlib.Path(path).read_bytes()
        try:
            return decode(content)
        except UserError:
            raise
        except Exception:
            if not content.startswith(_PNG):
                raise
            return decode(_pixels_of_png(content))
    except UserError as error:
        raise UserError(f'{path} {error}') from error
    except UnidentifiedImageError as error:
        raise UserError(f'{path} is not an image that can be read (unknown format)') from error
    except Exception as error:  # Decoders may raise anything.
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(f'{path} is not an image that can be read ({reason})') from error


def _decode(content, num_channels, white_level):
    with Image.open(io.BytesIO(content)) as image:
        num_images = _num_images(content)
        if num_images > 1 and image.format not in _FIRST_IS_WHOLE:
            raise UserError(
                f'is an animation of {num_images} images, or a document of so many pages'
            )
        rawmode, is_deep, upright = _load(image)
        is_grey = image.mode.startswith('I')
        transparent = image.info.get('transparency')
        largest = None
        if is_grey or (is_deep and (white_level or transparent is not None)):
            samples = _samples(image, rawmode, content)
            white = (white_level if is_deep else 4095 * (rawmode == 'I;12')) or 65535
            largest = int(samples[..., :3].max()) if is_deep else None
            image = _to_eight_bits(samples, white, transparent)
        elif is_deep:
            ends = image.getextrema()[:3]
            largest = max(end for _, end in ends) * 256 + 255
        image = upright(on_white(image))
        if image.mode == 'LAB':  # Pillow makes no grey of it.
            image = image.convert('RGB')
        return image.convert('L' if num_channels == 1 else 'RGB'), largest


def _decode_opacity(content):
    with Image.open(io.BytesIO(content)) as image:
        _, _, upright = _load(image)
        if image.has_transparency_data and not image.mode.startswith('I;16'):
            return np.asarray(upright(image.convert('RGBA')))[..., 3]
        width, height = upright(image).size
        return np.full((height, width), 255, np.uint8)


def _load(image):
    """Loads it: the results of `_depth`, and a function that turns an image made of it upright."""
    rawmode, is_deep = _depth(image)
    image.load()
    if rawmode in _GREY_STEPS and 'transparency' in image.info:
        image.info['transparency'] *= _GREY_STEPS[rawmode]
    method = _UPRIGHT.get(_orientation(image))  # None for a TIFF, which Pillow turns itself.
    return rawmode, is_deep, lambda image: image if method is None else image.transpose(method)


def _num_images(content):
    """The number of images; 1 if what follows the first is too damaged to count."""
    with Image.open(io.BytesIO(content)) as image:
        try:
            return getattr(image, 'n_frames', 1)
        except Exception:
            return 1


def _orientation(image):
    """The EXIF orientation, or None: metadata may hold anything."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None
    return orientation if isinstance(orientation, int) else None


def _depth(image):
    """How a file stores its values, and whether these have 16 bits (perhaps not all used)."""
    tile = image.tile[0] if image.tile else None
    rawmode = ''
    if tile and image.format in ('PNG', 'PPM', 'TIFF'):
        rawmode = tile.args if isinstance(tile.args, str) else tile.args[0]
    is_pgm = image.format == 'PPM' and image.mode == 'I'
    if image.mode in ('I', 'F') and not is_pgm:
        raise UserError('has 32 bits a channel, or signed values; 8 or 16 bits can be read')
    if is_pgm or image.format == 'JPEG2000':  # Pillow scales by the depth that these state.
        return rawmode, is_pgm and tile.codec_name == 'raw'
    return rawmode, ';16' in rawmode or (image.mode.startswith('I') and rawmode != 'I;12')


def _samples(image, rawmode, content):
    """All 16 bits of a picture, `[H, W, C]` uint16."""
    upper = np.asarray(image)
    if upper.ndim == 2:
        return upper.astype(np.uint16)[..., np.newaxis]
    if rawmode[:-1] not in ('RGB;16', 'RGBA;16'):
        raise UserError(
            f'has 16 bits a channel in a form ({rawmode}) that data.white_level cannot scale; '
            'save it as grey or RGB'
        )
    # Pillow keeps the upper 8 bits of colours; with the byte order swapped, the lower.
    order = 'L' if rawmode.endswith('B') else 'B'

    def turned(tile):
        rest = () if isinstance(tile.args, str) else tile.args[1:]
        other = rawmode[:-1] + order
        return tile._replace(args=(other, *rest) if rest else other)

    with Image.open(io.BytesIO(content)) as again:
        again.tile = [turned(tile) for tile in again.tile]
        lower = np.asarray(again)
    return upper.astype(np.uint16) << 8 | lower


def _to_eight_bits(samples, white, transparent):
    """Values from 0 to `white` as 8 bits, with alpha if there is a fourth or a transparent one."""
    colours = np.minimum(samples[..., :3], white).astype(np.uint32) * 256 // (white + 1)
    alpha = samples[..., 3:] >> 8
    if transparent is not None:
        alpha = 255 * (samples != np.asarray(transparent)).any(axis=-1, keepdims=True)
    pixels = np.concatenate([colours, alpha], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def on_white(image: Image.Image) -> Image.Image:
    """The image composited on white, for any kind of transparency."""
    if image.mode == 'La':
        image = image.convert('LA')
    if not image.has_transparency_data:
        return image
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)


def _pixels_of_png(content):
    """A PNG without the metadata that keeps Pillow from reading it: texts, profiles, times."""
    kept, place = _PNG, len(_PNG)
    while place < len(content):
        length, kind = struct.unpack_from('>I4s', content, place)
        chunk = content[place : place + length + 12]
        is_whole = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], 'big')
        # Chunks with a capital letter are critical; transparency and animation change the picture.
        if kind[:1].isupper() or kind in (b'tRNS', b'acTL') or (kind == b'eXIf' and is_whole):
            kept += chunk
        place += length + 12
    return kept
