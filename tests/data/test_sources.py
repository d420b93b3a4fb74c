"""A data set is one row of SOURCES."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers.commands import ROOT
from PIL import Image

from vaebm_jax.config import Config, DataConfig, validate
from vaebm_jax.data import densities
from vaebm_jax.data.batch import make_batch
from vaebm_jax.data.loading import first_images, held_out, in_words, load_images, open_images
from vaebm_jax.data.sources import SOURCES, Source
from vaebm_jax.evaluation.scores import evaluate
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import TASKS
from vaebm_jax.tasks.images import sample
from vaebm_jax.tasks.points import evaluate_points, sample_points
from vaebm_jax.training.loop import train


def stripes(data: DataConfig, split: str) -> np.ndarray:
    """Rows of one grey value each, 60 images of 8x8; other ones in each split."""
    rng = np.random.default_rng(('train', 'test').index(split))
    rows = rng.integers(0, 256, (60, 8, 1, 1), np.uint8)
    return np.broadcast_to(rows, (60, 8, 8, 1)).copy()


def test_a_new_data_set_is_one_row(tiny_config, tmp_path, monkeypatch, capfd):
    config = dataclasses.replace(tiny_config, num_steps=4, data=DataConfig(name='stripes'))
    with pytest.raises(UserError, match=r"data.name must be one of digits, .*, got 'stripes'"):
        validate(config)
    monkeypatch.setitem(SOURCES, 'stripes', Source(stripes, image_size=8))
    with pytest.raises(
        UserError, match='data.image_size must be 8 or a divisor of it for stripes, got 9'
    ):
        validate(dataclasses.replace(config, data=DataConfig('stripes', image_size=9)))
    train(config, tmp_path)
    states = train(dataclasses.replace(config, num_steps=6), tmp_path)
    assert int(states.energy.step) == 6
    lines = capfd.readouterr().err
    assert 'data: 60 images of stripes' in lines and 'resume: from step 4' in lines
    sample(config, tmp_path, num_samples=20)
    capfd.readouterr()
    evaluate(config, tmp_path, num_samples=20)
    lines = capfd.readouterr().err
    assert 'energies in nats' in lines and '\nuniform noise  ' in lines
    assert 'a Metropolis test accepts' in lines and 'no --inception_weights: Frechet' in lines
    for name in ('samples/refined.npz', 'samples/reconstruction.png', 'evaluation.json'):
        assert (tmp_path / name).is_file()


def test_a_new_density_is_one_row(tiny_config, tmp_path, monkeypatch):
    place = densities.Mixture(
        np.zeros((1, 2)),
        1.0,
        1,
        lambda rng, count: np.zeros((count, 2)),
        lambda x: np.zeros(len(x), int),
    )
    points = lambda data, split: place.draw(200, seed=len(split)).reshape(-1, 1, 1, 2)
    row = Source(points, image_size=1, num_channels=2, density=place)
    monkeypatch.setitem(SOURCES, 'gaussian', row)
    config = dataclasses.replace(tiny_config, latent_dim=2, data=DataConfig('gaussian', '', 1))
    with pytest.raises(UserError, match='num_channels must be 2 for gaussian, got 1; .*linear for'):
        validate(config)
    config.data.num_channels, config.network.decoder_output = 2, 'linear'
    train(config, tmp_path)
    sample_points(config, tmp_path, num_samples=50)
    result = evaluate_points(config, tmp_path, num_samples=50)
    assert result['refined']['mode_weights'] == [1.0] and result['kl_data_energy'] > 0


@pytest.mark.parametrize('name', SOURCES)
def test_a_setting_that_a_data_set_does_not_use_is_refused(name):
    source = SOURCES[name]
    others = {'load_size': 99, 'white_level': 300, 'crop': 'left', 'skip_unreadable': True}
    others |= {'val_share': 0.1, 'test_share': 0.1, 'array_name': 'a', 'value_range': (0, 1)}
    for setting, value in others.items():
        folder = '' if source.dir is None else '/'
        config = Config(data=DataConfig(name, folder, **{setting: value}))
        config.data.image_size = source.image_size or 8
        config.data.num_channels = source.num_channels or 3
        if source.density:
            config.network.decoder_output = 'linear'
        if setting in source.settings:
            validate(config)
        else:
            with pytest.raises(UserError, match=f'^data.{setting} must be .* but for [^;]*$'):
                validate(config)


@pytest.mark.parametrize('name', ['digits', *densities.DENSITIES])
def test_a_folder_is_refused_where_nothing_is_read_from_it(name):
    data = DataConfig(name, 'folder', SOURCES[name].image_size, num_channels=2)
    with pytest.raises(
        UserError, match=f"data.dir must be '' for {name}, which is read from no fi"
    ):
        validate(Config(data=data))


def test_the_published_sets_have_their_sizes():
    """By hand."""
    sizes = {'digits': (8, 1), 'mnist': (28, 1), 'fashion_mnist': (28, 1), 'cifar10': (32, 3)}
    sizes |= dict.fromkeys(('eight_gaussians', 'ring', 'two_moons', 'checkerboard'), (1, 2))
    sizes |= dict.fromkeys(('folder', 'facades', 'paris_streetview', 'array'), (None, None))
    for name, size in sizes.items():
        assert (SOURCES[name].image_size, SOURCES[name].num_channels) == size
    assert [held_out(DataConfig(name)) for name in ('digits', 'mnist')] == ['test', 'test']


@pytest.fixture
def images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    np.save(tmp_path / 'images.npy', images)
    return images


def array(folder, **settings):
    return DataConfig('array', str(folder / 'images.npy'), **settings)


def test_an_array_is_split_by_its_rows(images, tmp_path):
    splits = {'train': slice(0, 18), 'val': slice(18, 24), 'test': slice(24, 30)}
    for resident_bytes in (0, 10**6):
        settings = array(tmp_path, val_share=0.2, test_share=0.2, resident_bytes=resident_bytes)
        for split, rows in splits.items():
            held = load_images(settings, split)
            assert isinstance(held, np.ndarray) == bool(resident_bytes)
            np.testing.assert_array_equal(np.stack(list(held))[..., 0], images[rows])
            np.testing.assert_array_equal(
                first_images(settings, split, 3)[..., 0], images[rows][:3]
            )
    assert held_out(settings) == 'val' and held_out(array(tmp_path)) == 'test'
    np.testing.assert_array_equal(load_images(array(tmp_path), 'test')[..., 0], images)
    with pytest.raises(UserError, match='data.val_share must be above 0 where images of val are'):
        open_images(array(tmp_path, test_share=0.2), 'val')
    with pytest.raises(UserError, match='must hold at least 2 images with data.test_share=0.5'):
        np.save(tmp_path / 'images.npy', images[:1])
        open_images(array(tmp_path, test_share=0.5))


@pytest.mark.parametrize(
    'content, message',
    [
        (np.zeros((3, 8, 8), bool), r'an array of numbers .*, got bool \[3, 8, 8\] in'),
        (np.zeros((3, 64), np.uint8), r'an array of numbers .*, got uint8 \[3, 64\] in'),
        (np.full((3, 8, 8), np.nan), 'finite numbers, got others in .*from nan to nan$'),
        (np.full((3, 8, 8), [np.inf] + [0.0] * 7), 'finite numbers, .*from 0 to inf$'),
        (np.full((3, 8, 8), [-1.5] + [1.0] * 7), r'such as \(-1.5,1\): .*from -1.5 to 1$'),
        (np.zeros((3, 8, 8), np.int16), 'value_range must say .*of int16 .*from 0 to 0$'),
        (np.zeros((3, 8, 9), np.uint8), '8x9 pixels and 1 channels, got 8 and 1$'),
        (np.zeros((3, 8, 8, 3), np.uint8), '8x8 pixels and 3 channels, got 8 and 1$'),
        (np.array([{}]), 'must be an .npy or .npz file of images, got .*'),
        (np.zeros((0, 8, 8), np.uint8), 'data.dir must '),
        (b'GIF89a', 'must be an .npy or .npz file of images, got .*'),
        (b'', 'must be an .npy or .npz file of images, got .*'),
        (None, 'must be an .npy or .npz file of images, got .*No such file'),
    ],
)
def test_another_array_is_refused_in_one_line(tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / 'images.npy').write_bytes(content)
    elif content is not None:
        np.save(tmp_path / 'images.npy', content)
    with pytest.raises(UserError, match=message) as error:
        load_images(array(tmp_path))
    assert '\n' not in str(error.value)


RNG = np.random.default_rng(0)
SHARES = RNG.random((30, 8, 8, 5))


@pytest.mark.parametrize(
    'stored, value_range, right, ends',
    [
        (np.float32(SHARES), (), 2 * SHARES - 1, '0 to 1'),
        (np.float64(2 * SHARES - 1), (), 2 * SHARES - 1, '-1 to 1'),
        (np.float32(2 * SHARES - 1), (-2, 2), SHARES - 0.5, '-2 to 2'),
        (np.float64(SHARES).astype('>f8'), (-1.0, 1.0), SHARES, '-1 to 1'),
        (np.uint16(4095 * SHARES), (0, 4095), np.floor(4095 * SHARES) / 2047.5 - 1, '0 to 4095'),
        (np.int16(SHARES > 0.5), (0, 1), 2.0 * (SHARES > 0.5) - 1, '0 to 1'),
        (np.uint8(SHARES > 0.5), (0, 1), 2.0 * (SHARES > 0.5) - 1, '0 to 1'),
        (np.float16(SHARES), (), 2.0 * np.float64(np.float16(SHARES)) - 1, '0 to 1'),
    ],
)
@pytest.mark.parametrize('resident_bytes', [0, 10**6])
def test_numbers_of_any_kind_and_channels_become_pixels(
    tmp_path, capfd, stored, value_range, right, ends, resident_bytes
):
    """The range is that of all images, whichever split is read, and is told."""
    np.save(tmp_path / 'images.npy', stored)
    settings = array(
        tmp_path,
        num_channels=5,
        value_range=value_range,
        resident_bytes=resident_bytes,
        test_share=0.2,
    )
    held = load_images(settings)
    assert isinstance(held, np.ndarray) == bool(resident_bytes)
    pixels = np.stack(list(held))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, right[:24], atol=2e-7)
    assert f'data: 24 images of array; range {ends} mapped to [-1, 1]' in capfd.readouterr().err
    np.testing.assert_allclose(first_images(settings, 'test', 3), right[24:27], atol=2e-7)


def test_eight_bits_stay_so_and_their_range_is_told(images, tmp_path, capfd):
    assert load_images(array(tmp_path)).dtype == np.uint8
    assert '30 images of array; range 0 to 255 mapped to [-1, 1]' in capfd.readouterr().err
    settings = array(tmp_path, value_range=(0, 255))
    np.testing.assert_array_equal(load_images(settings)[..., 0], images)


def test_images_are_named_by_what_they_are(images, tmp_path):
    assert in_words(DataConfig('digits'), 'test') == 'test images'
    assert in_words(array(tmp_path, test_share=0.2), 'test') == 'test images'
    assert in_words(array(tmp_path), 'test') == 'training images (none is held out)'
    (tmp_path / 'files').mkdir()
    for number, image in enumerate(images[:2]):
        Image.fromarray(image).save(tmp_path / 'files' / f'{number}.png')
    folder = DataConfig('folder', str(tmp_path / 'files'))
    assert in_words(folder, 'test') == 'training images (none is held out)'
    for split in ('train', 'test'):
        (tmp_path / 'split' / split).mkdir(parents=True)
        Image.fromarray(images[0]).save(tmp_path / 'split' / split / 'a.png')
    assert in_words(DataConfig('folder', str(tmp_path / 'split')), 'test') == 'test images'


def test_an_npz_is_read_by_the_name_of_its_array(images, tmp_path):
    settings = DataConfig('array', str(tmp_path / 'images.npz'))
    np.savez(tmp_path / 'images.npz', images=images)
    np.testing.assert_array_equal(load_images(settings)[..., 0], images)
    np.savez_compressed(tmp_path / 'images.npz', images=images, labels=np.arange(30))
    with pytest.raises(UserError, match="array_name must be one of images, labels, .*, got ''$"):
        load_images(settings)
    with pytest.raises(UserError, match="array_name must be one of images, labels, .*, got 'x'$"):
        load_images(dataclasses.replace(settings, array_name='x'))
    named = dataclasses.replace(settings, array_name='images')
    np.testing.assert_array_equal(load_images(named)[..., 0], images)
    with pytest.raises(UserError, match="array_name must be '' for an .npy file, got 'images'"):
        load_images(array(tmp_path, array_name='images'))


def test_floating_point_images_are_mirrored_too():
    images = RNG.random((64, 8, 8, 2), np.float32)
    batch = make_batch(jax.random.key(0), images, DataConfig('array', 'x', flip=True)).image
    flipped = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(batch, images, strict=True)])
    kept = np.array([np.array_equal(a, b) for a, b in zip(batch, images, strict=True)])
    assert np.all(flipped ^ kept) and 16 < flipped.sum() < 48


def test_a_run_on_an_array_of_other_channels(tiny_config, tmp_path):
    """Trained, drawn, scored, and its range stays that of the run."""
    channels = 5
    np.save(tmp_path / 'images.npy', np.float32(SHARES[..., :channels]))
    data = array(tmp_path, num_channels=channels, test_share=0.3)
    config = dataclasses.replace(tiny_config, num_steps=2, data=data)
    preview = TASKS['images'].preview
    train(config, tmp_path / 'run', preview=preview)
    picture = Image.open(tmp_path / 'run/samples/step_00000002.png')
    assert picture.width > channels * 2 * picture.height * 0.8
    sample(config, tmp_path / 'run', num_samples=20)
    one = np.asarray(Image.open(tmp_path / 'run/samples/refined/00.png'))
    drawn = np.load(tmp_path / 'run/samples/refined.npz')['images'][0]
    assert one.shape == (8, 8 * channels)
    for channel in range(channels):
        right = np.round(127.5 * (drawn[..., channel].clip(-1, 1) + 1))
        np.testing.assert_array_equal(one[:, 8 * channel : 8 * channel + 8], right)
    assert evaluate(config, tmp_path / 'run', num_samples=20)['diagnostics']
    np.save(tmp_path / 'images.npy', np.float32(2 * SHARES[..., :channels] - 1))
    with pytest.raises(UserError, match='cannot be resumed: data.dir holds 30 images as before, b'):
        train(dataclasses.replace(config, num_steps=3), tmp_path / 'run')


def test_a_run_on_an_array_imports_no_other_readers(images, tmp_path):
    """In memory, and from disk; it goes on, but not with other images."""
    code = """
import json, sys
from vaebm_jax import main
sys.argv = ['main', *json.loads(sys.argv[1])]
try:
    main.run()
finally:
    print({'tensorflow_datasets', 'array_record', 'grain'} & set(sys.modules))
"""
    arguments = [f'--config={ROOT}/configs/digits.py', '--config.data.name=array', '--workdir=run']
    arguments += ['--config.batch_size=8', '--config.data.dir=images.npy']
    arguments += ['--config.langevin.num_steps=2', '--config.data.test_share=0.2']

    def run(*more):
        return subprocess.run(
            [sys.executable, '-c', code, json.dumps([*arguments, *more])],
            cwd=tmp_path,
            env=os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
            capture_output=True,
            text=True,
        )

    for more in (
        ['--config.num_steps=2'],
        ['--config.num_steps=3', '--config.data.resident_bytes=0'],
    ):
        result = run(*more)
        assert (result.returncode, result.stdout) == (0, 'set()\n'), result.stderr
        assert 'data: 24 images of array' in result.stderr
    np.save(tmp_path / 'images.npy', np.concatenate([images, images]))
    result = run('--config.num_steps=4')
    assert result.returncode == 1 and 'held 30 images before and holds 60 now' in result.stderr
