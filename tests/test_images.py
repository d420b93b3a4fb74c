"""Files of every kind: read as a person sees them, or refused by name."""

import io

import numpy as np
import pytest
from PIL import Image

from vaebm_jax.errors import UserError
from vaebm_jax.images import read_image

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (12, 17, 3), np.uint8)
GREY = RANDOM.integers(0, 256, (12, 17), np.uint8)


@pytest.fixture
def read(tmp_path):
    """Saves an image, or bytes, and reads the file back as an array."""

    def read(image, num_channels=3, suffix='png', **settings):
        path = tmp_path / f'file.{suffix}'
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path, **settings)
        return np.asarray(read_image(path, num_channels))

    return read


def test_colour_and_grey_are_brought_to_the_channels_asked_for(read):
    np.testing.assert_array_equal(read(Image.fromarray(RGB)), RGB)
    np.testing.assert_array_equal(read(Image.fromarray(GREY)), np.stack([GREY] * 3, axis=-1))
    np.testing.assert_array_equal(read(Image.fromarray(GREY), 1), GREY)
    luma = RGB @ [0.299, 0.587, 0.114]
    assert np.abs(read(Image.fromarray(RGB), 1) - luma).max() <= 1
    indexed = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(read(indexed), np.asarray(indexed.convert('RGB')))
    assert read(Image.new('CMYK', (4, 4), (0, 0, 0, 0)), suffix='jpg').min() >= 254


def test_the_upper_eight_of_sixteen_bits(read):
    deep = RANDOM.integers(0, 65536, (12, 17)).astype(np.uint16)
    np.testing.assert_array_equal(read(Image.fromarray(deep), 1), deep // 256)


def test_what_is_transparent_is_white(read):
    alpha = np.full((12, 17, 1), 255, np.uint8)
    alpha[:6] = 0
    image = read(Image.fromarray(np.concatenate([RGB, alpha], axis=-1)))
    assert (image[:6] == 255).all()
    np.testing.assert_array_equal(image[6:], RGB[6:])
    black = Image.new('P', (4, 4), 0)
    black.putpalette([0, 0, 0])
    assert (read(black, transparency=0) == 255).all() and (read(black) == 0).all()


def test_a_photograph_is_upright(read):
    turned = Image.fromarray(RGB)
    exif = turned.getexif()
    exif[0x0112] = 6  # The camera was held a quarter turn.
    np.testing.assert_array_equal(read(turned, exif=exif), np.rot90(RGB, -1))


def test_a_camera_s_preview_behind_the_photograph_is_no_animation(read):
    first, second = Image.fromarray(RGB), Image.new('RGB', (4, 4))
    image = read(first, suffix='jpg', format='MPO', save_all=True, append_images=[second])
    assert image.shape == RGB.shape


def test_an_animation_is_refused(read):
    frames = [Image.new('RGB', (4, 4), colour) for colour in ('red', 'blue')]
    for suffix in ('png', 'webp'):
        with pytest.raises(UserError, match=rf'file\.{suffix} is an animation of 2 images'):
            read(frames[0], suffix=suffix, save_all=True, append_images=frames[1:])


def test_of_32_bits_the_range_is_not_known(read):
    with pytest.raises(UserError, match='has 32 bits a channel'):
        read(Image.fromarray(np.ones((4, 4), np.float32)), suffix='tif')


def test_damaged_files_are_named_whatever_is_wrong_with_them(read):
    refused = 0
    for suffix in ('png', 'jpeg', 'bmp', 'webp'):
        buffer = io.BytesIO()
        Image.fromarray(RGB).save(buffer, suffix)
        whole = buffer.getvalue()
        for _ in range(60):
            content = bytearray(whole)
            for place in RANDOM.integers(0, min(len(content), 60), 4):
                content[place] = RANDOM.integers(0, 256)
            for part in (bytes(content), whole[: RANDOM.integers(0, len(whole) - 8)]):
                try:
                    assert read(part, suffix=suffix).dtype == np.uint8
                except UserError as error:
                    assert f'file.{suffix} ' in str(error) and '\n' not in str(error)
                    refused += 1
    assert refused > 300
