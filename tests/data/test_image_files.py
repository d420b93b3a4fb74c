"""Files of every kind: read as a person sees them, or refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from vaebm_jax.data.image_files import on_white, read_image
from vaebm_jax.runtime.errors import UserError

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (12, 17, 3), np.uint8)
GREY = RANDOM.integers(0, 256, (12, 17), np.uint8)


@pytest.fixture
def read(tmp_path):
    """Saves an image, or bytes, and reads the file back as an array."""

    def read(image, num_channels=3, suffix='png', white_level=0, **settings):
        path = tmp_path / f'file.{suffix}'
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path, **settings)
        return np.asarray(read_image(path, num_channels, white_level))

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


def png(samples, depth=8, transparent=None, chunks=()):
    """A PNG of grey or colours by its specification: Pillow writes neither 16 bits nor 4 of all."""
    height, width, channels = samples.shape
    if depth == 16:
        rows = [row.astype('>u2').tobytes() for row in samples]
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = [np.packbits(row).tobytes() for row in bits]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = [(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, 0))]
    if transparent is not None:
        parts += [(b'tRNS', np.asarray(transparent, '>u2').tobytes())]
    data = zlib.compress(b''.join(b'\0' + row for row in rows))
    parts += [*chunks, (b'IDAT', data), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        for name, data in parts
    )


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('depth', [1, 2, 4, 8, 16])
def test_one_transparent_value_is_white_at_every_depth(read, depth, channels):
    if channels == 3 and depth < 8:
        pytest.skip('PNG has no colours of so few bits')
    samples = RANDOM.integers(0, 2**depth, (12, 17, channels))
    key = samples[3, 5] if depth > 1 else np.array([0])
    if depth == 16:
        samples[0, 0] = key ^ 1  # The same upper bits, and another value.
    image = read(png(samples, depth, key))
    is_white = (samples == key).all(axis=-1)
    expected = samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)
    expected = np.broadcast_to(np.where(is_white[..., None], 255, expected), (12, 17, 3))
    np.testing.assert_array_equal(image, expected)
    assert is_white.any() and (depth < 16 or not is_white[0, 0])


@pytest.mark.parametrize('depth', [8, 16])
@pytest.mark.parametrize('channels', [2, 4])
def test_alpha_lays_on_white_at_both_depths(read, depth, channels):
    samples = RANDOM.integers(0, 2**depth, (12, 17, channels))
    image = read(png(samples, depth))
    eight = samples >> (depth - 8)
    alpha = eight[..., -1:] / 255
    expected = np.broadcast_to(eight[..., :-1] * alpha + 255 * (1 - alpha), (12, 17, 3))
    assert np.abs(image - expected).max() <= 1


@pytest.mark.parametrize('mode', ['LA', 'PA', 'P', 'RGBA', 'La', 'RGBa'])
def test_alpha_by_any_mechanism(mode):
    """Half of it is clear: that half is white, the other as it was."""
    rgba = np.dstack([*[GREY] * 3, np.full((12, 17), 255, np.uint8)])
    rgba[:6, :, 3] = 0
    image = Image.fromarray(rgba)
    if mode == 'P':
        image = Image.fromarray(GREY).convert('P')
        image.putpalette([v for i in range(256) for v in (i, i, i, 255 * (i > 99))], 'RGBA')
        is_clear = GREY <= 99
    else:
        is_clear = np.arange(12)[:, None].repeat(17, 1) < 6
        image = image.convert('LA' if mode in ('PA', 'La') else mode).convert(mode)
        if mode == 'PA':  # Which a conversion makes opaque.
            image.putalpha(Image.fromarray(rgba[..., 3]))
    result = np.asarray(on_white(image).convert('L'))
    np.testing.assert_array_equal(result, np.where(is_clear, 255, GREY))


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_few_of_sixteen_bits_are_scaled_by_the_white_level(read, channels, suffix):
    tifffile = pytest.importorskip('tifffile')
    samples = RANDOM.integers(0, 4096, (12, 17, channels)).astype(np.uint16)
    samples[0, 0], samples[0, 1] = 4095, 0
    if channels == 4:
        samples[..., 3] = 65535
    content = png(samples, 16)
    if suffix == 'tif':
        file = io.BytesIO()
        extra = ['unassalpha'] if channels == 4 else None
        kind = 'rgb' if channels > 1 else 'minisblack'
        pixels = samples if channels > 1 else samples[..., 0]
        tifffile.imwrite(file, pixels, photometric=kind, extrasamples=extra)
        content = file.getvalue()
    colours = np.broadcast_to(samples[..., :3], (12, 17, 3))
    dark = read(content, suffix=suffix)
    np.testing.assert_array_equal(dark, colours >> 8)
    image = read(content, suffix=suffix, white_level=4095)
    np.testing.assert_array_equal(image, colours >> 4)
    assert image[0, 0].min() == 255 and not image[0, 1].any()
    assert (read(content, suffix=suffix, white_level=2047)[colours >= 2047] == 255).all()


def test_a_depth_that_a_file_states_is_its_white(read):
    samples = RANDOM.integers(0, 4096, (12, 17))
    pgm = b'P5 17 12 4095\n' + samples.astype('>u2').tobytes()
    for white_level in (0, 1023):
        image = read(pgm, 1, 'pgm', white_level)
        assert np.abs(image - samples / 4095 * 255).max() <= 1
    full = b'P5 17 12 65535\n' + samples.astype('>u2').tobytes()
    np.testing.assert_array_equal(read(full, 1, 'pgm'), samples >> 8)
    np.testing.assert_array_equal(read(full, 1, 'pgm', 4095), samples >> 4)


def test_no_value_in_the_metadata_keeps_a_photograph_from_being_read(read):
    """Orientation 6 is found beside any nonsense."""
    kinds = [(kind, -1, 0) for kind in range(14)] + [(5, 0, 0), (10, 2**31 - 1, -1)]
    for kind, *value in kinds:
        entries = struct.pack('<HHLHH', 0x0112, 3, 1, 6, 0)
        entries += struct.pack('<HHLL', 0x011A, kind, 1, 38) + bytes(4)
        exif = b'Exif\0\0II*\0' + struct.pack('<LH', 8, 2) + entries + struct.pack('<ll', *value)
        image = read(Image.fromarray(RGB), suffix='jpg', exif=exif, quality=100, subsampling=0)
        assert np.abs(image - np.rot90(RGB, -1).astype(int)).max() < 8


def test_damaged_metadata_of_a_png_does_not_cost_its_pixels(read):
    bomb = b'a\0\0' + zlib.compress(bytes(2**21))
    texts = [
        (b'tEXt', b'key\0text'),
        (b'zTXt', bomb),
        (b'gAMA', b'1'),
        (b'pHYs', b''),
        (b'cHRM', b''),
    ]
    for name, value in texts:
        np.testing.assert_array_equal(read(png(RGB, chunks=[(name, value)])), RGB)
    content = png(RGB, chunks=[(b'tEXt', b'key\0text')])
    np.testing.assert_array_equal(read(content.replace(b'text', b'next')), RGB)
    place = content.index(b'IHDR') + 6
    with pytest.raises(UserError, match=r'file\.png is not an image that can be read'):
        read(content[:place] + b'\1' + content[place + 1 :])


def test_lab_colours_are_read_as_grey(read):
    lab = Image.fromarray(GREY).convert('RGB')
    lab = ImageCms.profileToProfile(
        lab, ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB'), outputMode='LAB'
    )
    assert np.abs(read(lab, 1, 'tif') - GREY.astype(int)).max() <= 6


def seen_by_pillow(content):
    """The picture by Pillow's own functions, RGB on white; None where it raises."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except Exception:
        return None
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:
        orientation = image.getexif().get(0x0112)
        if orientation in (2, 4, 5, 7):
            image = ImageOps.mirror(image)
        turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}
        image = image.rotate(90 * turns.get(orientation, 0), expand=True)
    if image.mode.startswith('I;16'):
        deep = np.asarray(image)
        pixels = np.where(deep == image.info.get('transparency', -1), 255, deep >> 8)
        return np.stack([pixels.astype(np.uint8)] * 3, axis=-1)
    if image.has_transparency_data:
        *colours, alpha = np.moveaxis(np.asarray(image.convert('RGBA'), float), -1, 0)
        alpha = alpha[..., None] / 255
        return np.stack(colours, axis=-1) * alpha + 255 * (1 - alpha)
    return np.asarray(image.convert('RGB'), float)


def random_picture(random):
    """A file of some format, mode and metadata: its suffix and content."""
    height, width = random.integers(1, 14, 2)
    modes = {
        'png': ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'),
        'jpg': ('L', 'RGB', 'CMYK'),
        'tif': ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16'),
        'gif': ('L', 'P', 'RGB', 'RGBA'),
        'webp': ('RGB', 'RGBA'),
        'bmp': ('1', 'L', 'P', 'RGB', 'RGBA'),
        'tga': ('L', 'LA', 'P', 'RGB', 'RGBA'),
        'ppm': ('1', 'L', 'RGB'),
        'jp2': ('L', 'LA', 'RGB', 'RGBA'),
        'pcx': ('1', 'L', 'P', 'RGB'),
        'sgi': ('L', 'RGB', 'RGBA'),
    }
    suffix = str(random.choice(list(modes)))
    mode = str(random.choice(modes[suffix]))
    if mode == 'I;16':
        image = Image.fromarray(random.integers(0, 2**16, (height, width)).astype(np.uint16))
    else:
        pixels = random.integers(0, 256, (height, width, 4), np.uint8)
        image = Image.fromarray(pixels).convert('RGB' if mode in ('P', 'CMYK') else mode)
        image = image.convert(mode)
    settings = {}
    if suffix in ('png', 'jpg', 'webp', 'tif') and random.random() < 0.5:
        exif = Image.Exif()
        exif[0x0112] = int(random.integers(0, 10))
        exif[0x011A], exif[0x010F] = 72.0, 'maker'
        settings['exif'] = exif
    if suffix in ('png', 'gif') and mode == 'P' and random.random() < 0.5:
        settings['transparency'] = int(random.integers(0, 8))
    if suffix == 'png' and mode in ('L', 'I;16', 'RGB') and random.random() < 0.5:
        value = image.getpixel((0, 0))
        settings['transparency'] = value
    if suffix in ('jpg', 'png', 'tif') and random.random() < 0.3:
        settings['icc_profile'] = random.bytes(40)
    file = io.BytesIO()
    formats = {'jpg': 'jpeg', 'tif': 'tiff', 'jp2': 'jpeg2000'}
    image.save(file, formats.get(suffix, suffix), **settings)
    return suffix, file.getvalue()


@pytest.mark.filterwarnings('ignore')
def test_any_file_is_read_as_pillow_sees_it_or_named(read):
    """2,000 files, whole, truncated at every tenth byte or with one byte changed."""
    random = np.random.default_rng(0)
    counts = dict(whole=0, refused=0, same=0, mended=0)
    num_files = 0
    while num_files < 2000:
        suffix, whole = random_picture(random)
        cuts = np.arange(0, len(whole), 10)
        if random.random() < 0.8:  # Every tenth byte of some, and more kinds of files.
            cuts = random.permutation(cuts)[:6]
        contents = [whole, *(whole[:cut] for cut in cuts)]
        for place in random.integers(0, len(whole), 6):
            changed = bytearray(whole)
            changed[place] ^= random.integers(1, 256)
            contents.append(bytes(changed))
        for content in contents:
            num_files += 1
            expected = seen_by_pillow(content)
            try:
                image = read(content, suffix=suffix)
            except UserError as error:
                assert f'file.{suffix} ' in str(error) and '\n' not in str(error)
                is_refused = ' 32 bits ' in str(error) or ' animation ' in str(error)
                assert content is not whole and (expected is None or is_refused), str(error)
                counts['refused'] += 1
                continue
            counts['whole'] += content is whole
            if expected is None:  # Its metadata alone was damaged.
                assert suffix == 'png'
                counts['mended'] += 1
                continue
            assert image.shape == expected.shape
            assert np.abs(image - expected).max() <= 1
            counts['same'] += 1
    print(counts)
    assert min(counts.values()) > 10
