import dataclasses
import os
import pathlib
import re
import struct

import jax
import numpy as np
import pytest
from PIL import Image

from vaebm_jax.config import Config, DataConfig
from vaebm_jax.data.batch import as_pixels, make_batch, to_uint8
from vaebm_jax.data.folder import Folder
from vaebm_jax.data.loading import block_means, first_images, image_parts, load_images
from vaebm_jax.data.order import batch_indices, stream
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training.loop import call_images

KEY = jax.random.key(0)


def test_digits_are_split_and_scaled():
    train, test = (load_images(DataConfig(), split) for split in ('train', 'test'))
    assert (train.shape, test.shape) == ((1500, 8, 8, 1), (297, 8, 8, 1))
    assert train.dtype == np.uint8 and train.min() == 0 and train.max() == 255


@pytest.mark.parametrize(
    'name, size, channels, means',
    [
        ('mnist', 28, 1, [0.1306604762738429]),
        ('fashion_mnist', 28, 1, [0.2860405969887955]),
        ('cifar10', 32, 3, [0.49140, 0.48216, 0.44653]),
    ],
)
def test_tfds_sets_are_the_published_images(name, size, channels, means):
    if not os.environ.get('TFDS_DATA_DIR'):
        pytest.skip('TFDS_DATA_DIR does not name a folder of prepared TFDS data sets')
    images = load_images(DataConfig(name, image_size=size, num_channels=channels))
    assert images.shape == (50_000 if name == 'cifar10' else 60_000, size, size, channels)
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)) / 255, means, atol=1e-4)
    test = load_images(DataConfig(name, image_size=size, num_channels=channels), 'test')
    assert test.shape == (10_000, size, size, channels)


def test_a_smaller_image_is_the_means_over_blocks():
    whole, small = (load_images(DataConfig('digits', image_size=size)) for size in (8, 2))
    assert small.shape == (1500, 2, 2, 1) and small.dtype == np.uint8
    for row, column in np.ndindex(2, 2):
        block = whole[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4, 0]
        exact = block.reshape(1500, 16).astype(float).mean(axis=1)
        np.testing.assert_array_equal(small[:, row, column, 0], np.floor(exact + 0.5))
    colours = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    # Of an image's first block, rows and columns 0 and 1: 0, 3, 12, 15 and the colour.
    np.testing.assert_array_equal(block_means(colours, 2)[0, 0, 0], [8, 9, 10])
    np.testing.assert_array_equal(block_means(np.full((1, 4, 4, 1), 255, np.uint8), 1), [[[[255]]]])


def test_a_damaged_tfds_set_is_named(tmp_path):
    if not os.environ.get('TFDS_DATA_DIR'):
        pytest.skip('TFDS_DATA_DIR does not name a folder of prepared TFDS data sets')
    source = pathlib.Path(os.environ['TFDS_DATA_DIR']).expanduser() / 'mnist' / '3.0.1'
    copy = tmp_path / 'mnist' / '3.0.1'
    copy.mkdir(parents=True)
    for path in source.glob('*.json'):
        (copy / path.name).write_bytes(path.read_bytes())
    (shard,) = source.glob('mnist-train.array_record*')
    content = shard.read_bytes()
    middle = len(content) // 2
    for part in (content[:middle], content[:middle] + bytes(1000) + content[middle + 1000 :]):
        (copy / shard.name).write_bytes(part)
        with pytest.raises(UserError, match=r'mnist in .* cannot be read .*Riegeli'):
            load_images(DataConfig('mnist', str(tmp_path), image_size=28))


def test_a_split_that_there_is_not_is_refused_with_those_there_are(folder):
    for name, splits, wrong in (
        ('digits', 'train, test', 'val'),
        ('ring', 'train, val, test', 'other'),
        ('folder', 'train, test', 'val'),
    ):
        data = DataConfig(name, str(folder), image_size=8)
        with pytest.raises(UserError) as caught:
            first_images(data, wrong, 3)
        assert str(caught.value) == f'split must be one of {splits} of {name}, got {wrong!r}'
    assert first_images(DataConfig('ring'), 'val', 3).shape == (3, 1, 1, 2)


def test_a_sound_tfds_set_is_not_to_be_deleted_for_a_split_that_it_has_not():
    if not os.environ.get('TFDS_DATA_DIR'):
        pytest.skip('TFDS_DATA_DIR does not name a folder of prepared TFDS data sets')
    with pytest.raises(UserError) as caught:
        load_images(DataConfig('mnist', image_size=28), 'val')
    assert re.fullmatch(
        "split must be one of (test, train|train, test) of mnist, got 'val'", str(caught.value)
    )


def test_the_newest_version_of_a_tfds_set_is_read(tmp_path):
    """10.0.0 comes after 9.0.0; half of a set that is being prepared is none."""
    if not os.environ.get('TFDS_DATA_DIR'):
        pytest.skip('TFDS_DATA_DIR does not name a folder of prepared TFDS data sets')
    source = pathlib.Path(os.environ['TFDS_DATA_DIR']).expanduser() / 'mnist' / '3.0.1'
    for name in ('9.0.0', '10.0.0.incomplete', 'incomplete.10.0.0'):
        (tmp_path / 'mnist' / name).mkdir(parents=True)
        (tmp_path / 'mnist' / name / 'dataset_info.json').write_text('{}')
    (tmp_path / 'mnist' / '10.0.0').symlink_to(source)
    assert len(load_images(DataConfig('mnist', str(tmp_path), image_size=28), 'test')) == 10_000


def test_a_set_that_is_not_prepared_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match='mnist is not prepared in .*tfds.data_source') as error:
        load_images(DataConfig('mnist', str(tmp_path), image_size=28))
    assert str(tmp_path) in str(error.value) and '\n' not in str(error.value)


def test_every_epoch_is_another_permutation_and_the_step_alone_decides():
    epochs = [
        np.concatenate([batch_indices(KEY, step, 20, 5) for step in range(first, first + 4)])
        for first in (0, 4)
    ]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(20))
    assert not np.array_equal(*epochs)
    np.testing.assert_array_equal(batch_indices(KEY, 5, 20, 5), epochs[1][5:10])
    assert not np.array_equal(batch_indices(jax.random.key(1), 0, 20, 5), epochs[0][:5])
    # 23 images in batches of 5: four a epoch, and three are left out.
    assert len(set(np.concatenate([batch_indices(KEY, step, 23, 5) for step in range(4)]))) == 20


def test_make_batch_scales_flips_and_dequantizes():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    plain = make_batch(KEY, images, DataConfig()).image
    np.testing.assert_allclose(plain, images / 127.5 - 1.0, atol=1e-6)

    many = np.tile(images[:1], (2000, 1, 1, 1))
    flipped = np.asarray(make_batch(KEY, many, DataConfig(flip=True)).image)
    mirrored = np.asarray(plain)[0, :, ::-1]
    is_mirrored = np.abs(flipped - mirrored).max(axis=(1, 2, 3)) < 1e-6
    is_same = np.abs(flipped - np.asarray(plain)[0]).max(axis=(1, 2, 3)) < 1e-6
    assert np.all(is_mirrored ^ is_same) and 0.44 < is_mirrored.mean() < 0.56

    spread = np.asarray(make_batch(KEY, many, DataConfig(dequantize=True)).image)
    bins = (spread + 1.0) * 128.0 - many
    assert bins.min() >= 0 and bins.max() <= 1
    np.testing.assert_allclose([bins.mean(), bins.var()], [1 / 2, 1 / 12], atol=2e-3)


@pytest.mark.parametrize('dequantize', [False, True])
def test_black_and_white_stand_beyond_the_range_and_pictures_clip_them(dequantize):
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    plain, beyond = (
        np.asarray(make_batch(KEY, images, DataConfig(dequantize=dequantize, headroom=h)).image)
        for h in (0.0, 0.25)
    )
    moved = (beyond - plain).ravel()
    np.testing.assert_allclose(moved[[0, 255]], [-0.25, 0.25], atol=1e-6)
    assert not moved[1:255].any()
    if not dequantize:
        np.testing.assert_allclose(as_pixels(images, 0.25), beyond, atol=1e-6)
        np.testing.assert_array_equal(to_uint8(beyond), images)


def test_random_crops_are_parts_of_the_image():
    images = np.arange(100, dtype=np.uint8).reshape(1, 10, 10, 1)
    batch = make_batch(KEY, np.tile(images, (400, 1, 1, 1)), DataConfig(load_size=10))
    crops = np.round((np.asarray(batch.image) + 1.0) * 127.5)
    corners = crops[:, 0, 0, 0]
    assert crops.shape == (400, 8, 8, 1)
    assert set(corners) == {10 * row + column for row in range(3) for column in range(3)}
    for crop, corner in zip(crops, corners.astype(int), strict=True):
        row, column = divmod(corner, 10)
        np.testing.assert_array_equal(crop, images[0, row : row + 8, column : column + 8])


def test_draws_follow_the_global_index():
    images = np.random.default_rng(0).integers(0, 256, (6, 10, 10, 1), np.uint8)
    data = DataConfig(flip=True, dequantize=True, load_size=10)
    whole = make_batch(KEY, images, data).image
    share = make_batch(KEY, images[4:], data, first=4).image
    np.testing.assert_array_equal(whole[4:], share)


@pytest.fixture
def folder(tmp_path):
    """Twelve images of many kinds below `train`, one below `test`."""
    generator = np.random.default_rng(0)
    for split, count in (('train', 12), ('test', 1)):
        (tmp_path / split / 'deep').mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (20 + index, 30, 3), np.uint8)
            suffix = ('png', 'jpg', 'webp')[index % 3]
            Image.fromarray(pixels).save(tmp_path / split / 'deep' / f'{index:02}.{suffix}')
    (tmp_path / 'train' / 'notes.txt').write_text('no image')
    return tmp_path


def test_a_folder_that_fits_is_held(folder):
    data = DataConfig('folder', str(folder), image_size=16, num_channels=3)
    images = load_images(data)
    assert images.shape == (12, 16, 16, 3) and images.dtype == np.uint8
    assert load_images(data, 'test').shape == (1, 16, 16, 3)
    grey = load_images(DataConfig('folder', str(folder), image_size=16, num_channels=1))
    assert grey.shape == (12, 16, 16, 1)


def test_images_are_cropped_to_the_centre(tmp_path):
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    images = load_images(DataConfig('folder', str(tmp_path), image_size=5, num_channels=1))
    np.testing.assert_array_equal(images, 200)


def test_training_images_are_loaded_larger_and_scored_whole(folder):
    data = DataConfig('folder', str(folder), image_size=16, load_size=18, num_channels=3)
    assert load_images(data).shape == (12, 18, 18, 3)
    assert load_images(data, 'test').shape == (1, 16, 16, 3)
    assert first_images(data, 'train', 5).shape == (5, 16, 16, 3)


def test_no_more_of_a_folder_is_read_than_is_asked_for(folder, monkeypatch):
    """Though all of it would fit."""
    data = DataConfig('folder', str(folder), image_size=16, load_size=18, num_channels=3)
    whole = first_images(data, 'train', None)
    read = []
    original = Folder.__getitem__
    monkeypatch.setattr(
        Folder, '__getitem__', lambda self, index: read.append(index) or original(self, index)
    )
    np.testing.assert_array_equal(first_images(data, 'train', 5), whole[:5])
    assert sorted(read) == [0, 1, 2, 3, 4]
    parts = image_parts(data, 'train', part_bytes=5 * 16 * 16 * 3 + 1)
    assert len(read) == 5
    sizes = []
    for part in parts:
        np.testing.assert_array_equal(part, whole[sum(sizes) :][: len(part)])
        sizes.append(len(part))
        assert len(read) <= 6 + sum(sizes)
    assert sizes == [5, 5, 2]
    assert [len(part) for part in image_parts(DataConfig('digits'), 'test')] == [297]


@pytest.mark.parametrize('crop, value', [('left', 50), ('right', 200)])
def test_one_half_of_a_file_is_the_image(tmp_path, crop, value):
    pixels = np.full((16, 32, 3), 50, np.uint8)
    pixels[:, 16:] = 200
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    images = load_images(DataConfig('folder', str(tmp_path), 8, num_channels=3, crop=crop))
    np.testing.assert_array_equal(images, value)


def test_a_folder_without_splits_is_shared_out(folder):
    data = DataConfig(
        'folder', str(folder / 'train'), image_size=8, val_share=0.25, test_share=1 / 3
    )
    names = {split: [file.name for file in Folder(data, split).files] for split in SPLITS}
    assert {split: len(files) for split, files in names.items()} == dict(train=5, val=3, test=4)
    assert len(set().union(*names.values())) == 12
    assert names == {split: [file.name for file in Folder(data, split).files] for split in SPLITS}


SPLITS = ('train', 'val', 'test')


def test_facades_are_looked_for_in_their_own_variable(folder, monkeypatch):
    monkeypatch.setenv('FACADES_DIR', str(folder))
    assert load_images(DataConfig('facades', image_size=8, num_channels=3)).shape == (12, 8, 8, 3)
    monkeypatch.delenv('FACADES_DIR')
    with pytest.raises(UserError, match='data.dir must be a folder of images .FACADES_DIR names'):
        load_images(DataConfig('facades', image_size=8))


def test_a_larger_folder_is_streamed_in_the_same_order(folder):
    data = DataConfig('folder', str(folder), image_size=16, num_channels=3, resident_bytes=0)
    streamed, held = load_images(data), load_images(DataConfig(**vars(data) | RESIDENT))
    assert isinstance(streamed, Folder)
    config = Config(num_steps=9, batch_size=4, steps_per_call=2, log_every=3, data=data)
    devices = jax.devices()
    pairs = zip(
        call_images(KEY, streamed, config, devices, 2),
        call_images(KEY, held, config, devices, 2),
        strict=True,
    )
    lengths = [1, 2, 1, 2, 1]  # Calls end at 3, 5, 6, 8 and 9.
    for (ours, theirs), length in zip(pairs, lengths, strict=True):
        assert ours.shape == theirs.shape == (2, 4, 16, 16, 3)
        np.testing.assert_array_equal(ours[:length], theirs[:length])

    share = next(stream(streamed, KEY, 4, slice(2, 4), 5, 9))
    np.testing.assert_array_equal(share, held[batch_indices(KEY, 5, 12, 4)[2:]])


RESIDENT = {'resident_bytes': 1 << 20}


def test_bad_folders_and_files_are_named(tmp_path, folder):
    missing = tmp_path / 'missing'
    with pytest.raises(UserError, match="data.dir must be a folder of images, got '.*missing'"):
        load_images(DataConfig('folder', str(missing), image_size=8))
    missing.mkdir()
    with pytest.raises(UserError, match='data.dir must hold images .* found none'):
        load_images(DataConfig('folder', str(missing), image_size=8))
    bad = pathlib.Path(folder) / 'train' / 'bad.png'
    bad.write_bytes(b'no image')
    with pytest.raises(UserError, match=r'bad\.png is not an image that can be read'):
        load_images(DataConfig('folder', str(folder), image_size=8))
    good = (folder / 'train' / 'deep' / '00.png').read_bytes()
    bad.write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match=r'bad\.png is not an image that can be read'):
        load_images(DataConfig('folder', str(folder), image_size=8))


def test_files_that_cannot_be_read_are_skipped_and_counted_where_that_is_asked(folder, capsys):
    for index in range(2):
        (folder / 'train' / f'bad{index}.png').write_bytes(b'no image')
    data = DataConfig('folder', str(folder), image_size=8, skip_unreadable=True)
    assert len(load_images(data)) == 12
    said = capsys.readouterr().err
    assert said.startswith('skipped 2 of 14 files that cannot be read: ') and 'bad1.png' in said
    streamed = load_images(DataConfig(**vars(data) | {'resident_bytes': 0}))
    assert isinstance(streamed, Folder) and len(streamed) == 12
    for path in (folder / 'train' / 'deep').iterdir():
        path.unlink()
    with pytest.raises(UserError, match='data.dir holds 2 files and no image that can be read'):
        load_images(data)


def test_hidden_files_are_no_images(folder):
    (folder / 'train' / '._00.png').write_bytes(b'what another system keeps of a file')
    assert len(load_images(DataConfig('folder', str(folder), image_size=8))) == 12


def test_few_of_sixteen_bits_are_noticed_once_with_the_setting_that_scales_them(tmp_path, capsys):
    random = np.random.default_rng(0)
    for index in range(20):
        pixels = random.integers(0, 4096, (8, 8)).astype(np.uint16)
        pixels[0, 0] = 4095
        Image.fromarray(pixels).save(tmp_path / f'{index:02}.png')
    data = DataConfig('folder', str(tmp_path), image_size=8)
    for resident_bytes in (2**20, 0):
        dark = load_images(dataclasses.replace(data, resident_bytes=resident_bytes))
        said = capsys.readouterr().err
        assert said.count('use 12 bits (largest value 4,095 of 65,535)') == 1
        assert said.count('--config.data.white_level=4095') == 1
        assert max(dark[index].max() for index in range(20)) == 15
        scaled = dataclasses.replace(data, resident_bytes=resident_bytes, white_level=4095)
        bright = load_images(scaled)
        assert 'white_level' not in capsys.readouterr().err
        assert [int(bright[index].max()) for index in range(20)] == [255] * 20
    for index in range(20):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f'{index:02}.png')
    with pytest.raises(
        UserError, match='white_level must be 0 where no file has 16 bits, got 4095'
    ):
        load_images(dataclasses.replace(data, white_level=4095))


def test_a_photograph_with_impossible_metadata_is_an_image_of_its_folder(tmp_path):
    entries = struct.pack('<HHLHH', 0x0112, 3, 1, 6, 0) + struct.pack('<HHLL', 0x011A, 10, 1, 38)
    exif = b'Exif\0\0II*\0' + struct.pack('<LH', 8, 2) + entries + struct.pack('<Lll', 0, -1, 0)
    for index, extra in enumerate([{}, {'exif': exif}]):
        image = Image.fromarray(
            np.random.default_rng(index).integers(0, 256, (24, 32, 3), np.uint8)
        )
        image.save(tmp_path / f'{index}.jpg', **extra)
    for skip in (False, True):
        data = DataConfig('folder', str(tmp_path), 8, num_channels=3, skip_unreadable=skip)
        assert load_images(data).shape == (2, 8, 8, 3)
