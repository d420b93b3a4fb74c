"""A small conditional run, scored, drawn and used on a photograph."""

import dataclasses
import json
import pathlib
import shutil
import struct

import jax
import numpy as np
import pytest
from helpers.commands import command
from helpers.configs import U_NET
from helpers.images import smooth_images
from helpers.runs import train
from PIL import Image

from vaebm_jax import create_states, load
from vaebm_jax.config import (
    ConditionConfig,
    Config,
    DataConfig,
    LangevinConfig,
    NetworkConfig,
    VAEConfig,
)
from vaebm_jax.data.batch import to_uint8
from vaebm_jax.data.conditions import fixed_condition, observed_of, of_mask
from vaebm_jax.data.image_files import read_image
from vaebm_jax.figures import outputs
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import recovery
from vaebm_jax.tasks.report import write_report

NUM_IMAGES = {'train': 12, 'val': 2, 'test': 5}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Smooth pictures of 24x24 pixels in three splits."""
    root = tmp_path_factory.mktemp('pictures')
    for seed, (split, count) in enumerate(NUM_IMAGES.items()):
        (root / split).mkdir()
        for index, image in enumerate(to_uint8(smooth_images(count, 24, seed))):
            Image.fromarray(image).save(root / split / f'{index}.png')
    return root


@pytest.fixture(scope='module')
def run(folder, tmp_path_factory):
    """Two steps of the VAE and three of all."""
    table = (('conv', 8, 3, 2),)
    config = Config(
        num_steps=5,
        warmup_steps=2,
        batch_size=4,
        latent_dim=4,
        log_every=1,
        sample_every=0,
        checkpoint_every=0,
        data=DataConfig('folder', str(folder), image_size=16, load_size=20, num_channels=3),
        condition=ConditionConfig('center_hole', jitter=0.1, edge_profiles=0.5),
        langevin=LangevinConfig(num_steps=2),
        vae=VAEConfig(truth_weight=1.0, guess_weight=1.0),
        network=NetworkConfig(energy=table, encoder=table, decoder=U_NET),
    )
    workdir = tmp_path_factory.mktemp('run')
    train(config, workdir)
    return workdir


def test_the_first_steps_are_the_vaes(run):
    rows = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5]
    assert ['energy_data' in row for row in rows] == [False, False, True, True, True]
    with Image.open(run / 'samples' / 'step_00000005.png') as picture:
        assert np.asarray(picture).std() > 0


def test_evaluate_scores_recoveries_beside_fills(run, weights):
    states, config = load(run)
    result = recovery.evaluate_recovery(
        config, run, num_recoveries=3, inception_weights=weights, split='test'
    )
    assert json.loads((run / 'evaluation.json').read_text()) == result
    assert (result['split'], result['condition']) == ('test', 'center_hole')
    names = {name for name, row in result.items() if isinstance(row, dict)}
    assert names == {
        *('ancestral', 'refined', 'mean', 'mean_ancestral', 'best'),
        *('fill_grey', 'fill_mean', 'fill_harmonic', 'fill_biharmonic', 'fill_hint', 'fill_ridge'),
    }
    for name in names:
        row = result[name]
        assert row['num_samples'] == NUM_IMAGES['test']
        # A hole of half the side is a quarter of the image: 6.02 dB between hole and whole.
        np.testing.assert_allclose(row['psnr'] - row['psnr_hole'], 10 * np.log10(4), atol=1e-6)
        assert 0 < row['ssim_hole'] < 1 and 0 < row['ssim'] < 1 and row['fd_64'] > 0
    assert result['best']['psnr_hole'] >= result['refined']['psnr_hole']
    assert result['fill_harmonic']['psnr_hole'] > result['fill_grey']['psnr_hole']
    assert {name for name in names if 'deviation' in result[name]} == {'ancestral', 'refined'}
    recovery.sample_recoveries(config, run, num_samples=NUM_IMAGES['test'], num_recoveries=3)
    with np.load(run / 'samples' / 'refined.npz') as file:
        hole = file['images'].clip(-1, 1)[:, :, 4:12, 4:12]
    mean = hole.mean(axis=1, keepdims=True)
    expected = np.sqrt(((hole - mean) ** 2).mean(axis=1)).mean()
    assert result['refined']['deviation'] == pytest.approx(expected, rel=1e-5) and expected > 0
    page = write_report(run).read_text()
    assert 'fill_biharmonic' in page and 'psnr_hole' in page


def test_sample_draws_rows_and_keeps_the_arrays(run):
    states, config = load(run)
    recovery.sample_recoveries(config, run, num_samples=3, num_recoveries=5, split='test')
    with np.load(run / 'samples' / 'refined.npz') as file:
        images = file['images']
    assert images.shape == (3, 5, 16, 16, 3)
    with Image.open(run / 'samples' / 'recovery.png') as picture:
        assert np.asarray(picture).std() > 0


def test_holes_are_cut_out_where_all_are_as_large():
    images = np.random.default_rng(0).random((4, 16, 16, 1)).astype(np.float32)
    for kind, shape in (('random_hole', (8, 8)), ('free_form', (16, 16)), ('lower_half', (8, 16))):
        region = recovery.missing(fixed_condition(images, ConditionConfig(kind)))
        cut = recovery.holes(region)(images)
        assert cut.shape == (4, *shape, 1)
        if kind != 'free_form':
            np.testing.assert_array_equal(cut[2].ravel(), images[2][region[2]].ravel())


@pytest.mark.parametrize(
    'kind, what',
    [
        ('center_hole', 'the missing pixels of outputs and of the same images'),
        ('random_hole', 'the missing pixels of outputs and of the same images'),
        ('free_form', 'complete outputs and the same images, since the boxes around holes differ'),
    ],
)
def test_the_protocol_says_what_is_compared(run, tmp_path, monkeypatch, kind, what):
    """And training images are read for no fill but that of a hole in the middle."""
    read = []
    parts = recovery.image_parts
    monkeypatch.setattr(
        recovery, 'image_parts', lambda *args: (read.append(x) or x for x in parts(*args))
    )
    states, config = load(run)
    condition = dataclasses.replace(config.condition, kind=kind, jitter=0.0, edge_profiles=0.0)
    config = dataclasses.replace(config, condition=condition)
    monkeypatch.setattr(recovery.checkpoints, 'load', lambda *_: (states, config))
    (tmp_path / kind).mkdir()
    result = recovery.evaluate_recovery(config, tmp_path / kind, num_recoveries=1)
    assert f'; fd: of {what}' in result['protocol']
    assert sum(map(len, read)) == (NUM_IMAGES['train'] if kind == 'center_hole' else 0)


def test_boxes_around_strokes_are_not_called_hidden():
    region = np.zeros((2, 8, 8), bool)
    region[:, 2, 2:5] = region[:, 2:6, 2] = True
    assert recovery.compared(region).startswith('the boxes around the missing pixels of outputs')


@pytest.mark.parametrize('kind', ['free_form', 'gray'])
def test_without_a_ridge_no_training_image_is_needed(run, folder, tmp_path, monkeypatch, kind):
    states, config = load(run)
    condition = dataclasses.replace(config.condition, kind=kind, jitter=0.0, edge_profiles=0.0)
    images = tmp_path / 'images'
    shutil.copytree(folder, images)
    for file in (images / 'train').iterdir():
        file.write_bytes(b'no image')
    config = dataclasses.replace(
        config, condition=condition, data=dataclasses.replace(config.data, dir=str(images))
    )
    monkeypatch.setattr(recovery.checkpoints, 'load', lambda *_: (states, config))
    result = recovery.evaluate_recovery(config, tmp_path, num_recoveries=1)
    assert result['refined']['num_samples'] == NUM_IMAGES['test']
    assert 'fill_ridge' not in result


def photograph(path, width, height, mode='RGB', seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


def mask_of(path, width, height, box):
    mask = np.zeros((height, width), np.uint8)
    mask[box] = 255
    Image.fromarray(mask).save(path)
    return mask > 0


def test_recover_keeps_the_photographs_own_pixels(run, tmp_path):
    photo = photograph(tmp_path / 'photo.png', 40, 36)
    hidden = mask_of(tmp_path / 'mask.png', 40, 36, np.s_[10:20, 5:25])
    arguments = ['--mode=recover', f'--workdir={run}', '--input=photo.png', '--mask=mask.png']
    result = command(*arguments, '--output=out/recovered.png', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / 'out' / 'recovered.png') as image:
        recovered = np.asarray(image)
    np.testing.assert_array_equal(recovered[~hidden], photo[~hidden])
    assert np.mean(recovered[hidden] != photo[hidden]) > 0.9


@pytest.mark.parametrize('kind', ['gray', 'low_resolution'])
def test_a_photograph_without_a_mask(kind, tmp_path, monkeypatch):
    """What an untrained model makes of its colours or detail is the hint, all over."""
    config = Config(
        latent_dim=4,
        data=DataConfig(image_size=16, num_channels=3),
        condition=ConditionConfig(kind),
        langevin=LangevinConfig(num_steps=1, step_size=1e-6),
        network=NetworkConfig(energy=(), encoder=(), decoder=(('dense', 8),)),
    )
    states = create_states(jax.random.key(0), config)
    monkeypatch.setattr(recovery.checkpoints, 'load', lambda *_: (states, config))
    photo = photograph(tmp_path / 'photo.png', 16, 16)
    recovery.recover_file(
        config,
        tmp_path,
        input_file=str(tmp_path / 'photo.png'),
        mask_file=None,
        output_file=str(tmp_path / 'recovered.png'),
    )
    with Image.open(tmp_path / 'recovered.png') as image:
        recovered = np.asarray(image, np.float64)
    expected = photo @ [0.299, 0.587, 0.114]
    if kind == 'low_resolution':
        expected = np.asarray(Image.fromarray(photo).reduce(4).resize((16, 16), 3), np.float64)
    else:
        expected = np.repeat(expected[..., np.newaxis], 3, axis=-1)
    np.testing.assert_allclose(recovered, expected, atol=3.0)


def test_a_mask_of_a_box_is_the_hole_that_models_were_trained_with(run):
    _, config = load(run)
    image = smooth_images(1, 16)[0]
    is_observed = np.ones((16, 16), bool)
    is_observed[4:12, 4:12] = False
    condition = of_mask(image, is_observed, config.condition)
    expected = fixed_condition(image[None], config.condition)
    np.testing.assert_allclose(condition, expected, atol=1e-6)
    is_observed[4, 4] = True
    other = of_mask(image, is_observed, config.condition)
    np.testing.assert_array_equal(observed_of(other)[0, ..., 0], is_observed)


@pytest.mark.parametrize('edge, share', [(20, ''), (36, '81%')])
def test_a_mask_of_most_of_the_photograph_gets_a_warning(run, tmp_path, capsys, edge, share):
    """36 of 40 pixels in either direction; half is no reason to warn."""
    photograph(tmp_path / 'photo.png', 40, 40)
    mask_of(tmp_path / 'mask.png', 40, 40, np.s_[:edge, : 36 if share else 40])
    recovery.recover_file(
        load(run)[1],
        run,
        input_file=tmp_path / 'photo.png',
        mask_file=tmp_path / 'mask.png',
        output_file=tmp_path / 'out.png',
    )
    said = capsys.readouterr().err
    assert (f'warning: --mask is white in {share} of the photograph' in said) == bool(share)


def test_bad_photographs_and_masks_are_named(run, tmp_path):
    states, config = load(run)
    photograph(tmp_path / 'photo.png', 40, 36)
    photograph(tmp_path / 'long.png', 80, 36)
    photograph(tmp_path / 'small.png', 7, 7)
    mask_of(tmp_path / 'other.png', 30, 36, np.s_[3:9, 3:9])
    mask_of(tmp_path / 'black.png', 40, 36, np.s_[:0])
    mask_of(tmp_path / 'white.png', 40, 36, np.s_[:])
    (tmp_path / 'text.png').write_text('no image')

    def refused(photo, mask, message):
        with pytest.raises(UserError, match=message):
            recovery.recover_file(
                config,
                run,
                input_file=str(tmp_path / photo),
                mask_file=mask and str(tmp_path / mask),
                output_file=str(tmp_path / 'out.png'),
            )

    refused('nowhere.png', 'black.png', '--input must name an image: ')
    refused('text.png', 'black.png', '--input must name an image: ')
    refused('long.png', 'black.png', '--input must be about square .* got 80x36')
    refused('small.png', 'black.png', '--input must be .* at least 8 pixels a side')
    refused('photo.png', None, '--mask must name a file for a model of condition.kind center_hole')
    refused('photo.png', 'other.png', '--mask must be of the size of --input, 40x36, got 30x36')
    refused('photo.png', 'black.png', '--mask must be white where .* all of it is black')
    refused('photo.png', 'white.png', '--mask must be white where .* all of it is white')


def pictures_with_a_hole():
    """A photograph `[H, W]` of all greys, and where its hole is."""
    rows, columns = np.mgrid[:60, :50]
    hole = (abs(rows - 29.5) < 12) & (abs(columns - 20) < 9)
    return np.uint8(rows + 4 * columns), hole


def erased(photo, hole, mode):
    """As an editor saves it: with a hole that is transparent."""
    opacity = np.uint8(255 * ~hole)
    if mode == 'LA':
        return Image.fromarray(np.dstack([photo, opacity]))
    return Image.fromarray(np.dstack([photo] * 3 + [opacity])).convert(mode)


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'PA'])
@pytest.mark.parametrize('inside', [0, 128, 255])
def test_a_photograph_with_an_erased_hole_is_its_own_mask(tmp_path, mode, inside):
    photo, hole = pictures_with_a_hole()
    picture = erased(np.where(hole, inside, photo), hole, mode)
    picture.save(tmp_path / 'mask.tif' if mode == 'PA' else tmp_path / 'mask.png')
    file = next(tmp_path.iterdir())
    np.testing.assert_array_equal(np.asarray(recovery.read_mask(file)), 255 * hole)


def test_an_erased_hole_is_told_by_a_palette_and_by_a_colour_too(tmp_path):
    photo, hole = pictures_with_a_hole()
    image = Image.fromarray(np.where(hole, 0, np.maximum(photo, 1)))
    image.save(tmp_path / 'colour.png', transparency=0)
    image.convert('P').save(tmp_path / 'palette.png', transparency=0)
    for name in ('colour.png', 'palette.png'):
        np.testing.assert_array_equal(
            np.asarray(recovery.read_mask(tmp_path / name)), 255 * hole, name
        )


def test_what_is_seen_around_an_erased_hole_stays(run, tmp_path):
    photo, hole = pictures_with_a_hole()
    erased(photo, hole, 'RGBA').save(tmp_path / 'erased.png')
    arguments = ['--mode=recover', f'--workdir={run}', '--input=erased.png', '--mask=erased.png']
    result = command(*arguments, '--output=out.png', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / 'out.png') as image:
        recovered = np.asarray(image)
    np.testing.assert_array_equal(recovered[~hole], np.dstack([photo] * 3)[~hole])
    assert np.mean(recovered[hole] != 255) > 0.9


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'bmp', 'webp', 'gif'])
@pytest.mark.parametrize('ground', [None, 'transparent'])
def test_masks_as_editors_save_them(tmp_path, suffix, ground):
    """JPEG and WebP blur the edge of a mask; black on a transparent ground is a mask, too."""
    _, hole = pictures_with_a_hole()
    hole = np.kron(hole, np.ones((4, 4), bool))
    image = Image.fromarray(np.uint8(255 * hole))
    if ground == 'transparent' and suffix in ('png', 'webp'):
        image = erased(np.uint8(255 * hole), hole, 'RGBA')
    image.save(tmp_path / f'mask.{suffix}')
    found = np.asarray(recovery.read_mask(tmp_path / f'mask.{suffix}')) > 0
    assert np.mean(found != hole) < 0.01
    assert suffix in ('jpg', 'webp') or np.array_equal(found, hole)


def test_what_is_no_mask_is_refused(tmp_path):
    photo, hole = pictures_with_a_hole()
    gray = np.where(hole, 255, photo)
    images = {
        'photo': (Image.fromarray(photo), r'(8|9)\d% of its pixels are not black or white'),
        'filled with white': (Image.fromarray(gray), 'are not black or white'),
        'faint': (Image.fromarray(np.uint8(128 * hole)), 'are not black or white'),
        'softly erased': (
            Image.fromarray(np.dstack([photo] * 3 + [np.uint8(photo)])),
            'are not transparent or opaque',
        ),
        'faint all over': (
            Image.fromarray(np.dstack([photo] * 3 + [np.full_like(photo, 128)])),
            'are not transparent or opaque',
        ),
        'white on nothing': (
            Image.fromarray(np.dstack([np.full_like(photo, 255)] * 3 + [np.uint8(255 * hole)])),
            'parts are white and others transparent',
        ),
    }
    for name, (image, message) in images.items():
        image.save(tmp_path / f'{name}.png')
        with pytest.raises(UserError, match=message) as caught:
            recovery.read_mask(tmp_path / f'{name}.png')
        assert str(caught.value).startswith('--mask must be white') and name in str(caught.value)


def test_one_pixel_in_a_hundred_may_be_soft(tmp_path):
    mask = np.zeros((20, 20), np.uint8)
    mask[:10] = 255
    for count, value, is_mask in ((4, 128, True), (5, 128, False), (99, 31, True), (99, 224, True)):
        soft = mask.copy()
        soft.flat[:count] = value
        Image.fromarray(soft).save(tmp_path / 'mask.png')
        if is_mask:
            found = np.asarray(recovery.read_mask(tmp_path / 'mask.png'))
            np.testing.assert_array_equal(found, np.uint8(255 * (soft >= 128)))
        else:
            with pytest.raises(UserError, match='1% of its pixels'):
                recovery.read_mask(tmp_path / 'mask.png')


FORMATS = {'png': 'PNG', 'jpg': 'JPEG', 'JPEG': 'JPEG', 'tif': 'TIFF', 'webp': 'WEBP', 'bmp': 'BMP'}


def recovered(run, folder, output, num_recoveries=1):
    """Recovers a photograph in `folder`."""
    photograph(folder / 'photo.png', 40, 36)
    mask_of(folder / 'mask.png', 40, 36, np.s_[10:20, 5:25])
    _, config = load(run)
    recovery.recover_file(
        config,
        run,
        input_file=folder / 'photo.png',
        mask_file=folder / 'mask.png',
        output_file=output,
        num_recoveries=num_recoveries,
    )


@pytest.mark.parametrize('num_recoveries', [1, 3])
@pytest.mark.parametrize('suffix', FORMATS)
def test_the_suffix_is_obeyed_and_what_is_written_is_named(
    run, tmp_path, capsys, suffix, num_recoveries
):
    folder = tmp_path / 'not' / 'yet'
    recovered(run, tmp_path, folder / f'a.b.{suffix}', num_recoveries)
    names = capsys.readouterr().err.splitlines()[-1].removeprefix('finished: ').split(', ')
    assert sorted(names) == sorted(map(str, folder.iterdir())) and len(names) == num_recoveries
    for name in names:
        assert name.endswith(f'.{suffix}')
        with Image.open(name) as image:
            assert image.format == FORMATS[suffix] and image.size == (40, 36)


@pytest.mark.parametrize(
    'name, message',
    [
        ('out', 'must end with the suffix of an image'),
        ('out.final', "must end with the suffix .* got '.*out.final'"),
        ('out.psd', 'must end with the suffix'),  # Pillow reads it, and cannot write it.
        ('folder.png', 'but .*folder.png is a folder'),
        ('file/out.png', 'must be in a folder'),
        ('file/below/out.png', 'must be in a folder'),
        ('x' * 300 + '.png', 'must name a file that can be written'),
        ('~nobody_has_this_name/out.png', 'begins with ~'),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(tmp_path, name, message):
    """There is not even a run to read."""
    (tmp_path / 'folder.png').mkdir()
    (tmp_path / 'file').touch()
    before = set(tmp_path.rglob('*'))
    with pytest.raises(UserError, match=message):
        recovery.recover_file(
            Config(),
            tmp_path / 'no run',
            input_file='photo.png',
            mask_file='mask.png',
            output_file=name if name.startswith('~') else tmp_path / name,
        )
    assert set(tmp_path.rglob('*')) == before


def test_a_folder_at_a_numbered_name_is_refused(tmp_path):
    (tmp_path / 'out-1.png').mkdir()
    with pytest.raises(UserError, match='out-1.png is a folder'):
        outputs.output_paths(tmp_path / 'out.png', 3)


def test_a_conditional_run_is_recovered_with_and_others_are_not(tmp_path, tiny_config):
    train(tiny_config, tmp_path / 'run')
    result = command('--mode=recover', '--workdir=run', cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == 'error: --mode=recover needs a run with a condition.kind, got none\n'


def test_fixed_conditions_are_the_same_every_time():
    images = np.zeros((5, 16, 16, 1), np.float32)
    config = ConditionConfig('center_hole', jitter=0.3)
    seen = np.asarray(observed_of(jax.device_get(fixed_condition(images, config))))[..., 0]
    expected = np.ones((16, 16), bool)
    expected[4:12, 4:12] = False
    np.testing.assert_array_equal(seen, np.tile(expected, (5, 1, 1)))


@pytest.mark.parametrize('flag', ['input', 'mask'])
@pytest.mark.parametrize('way', ['same', 'dotted', 'symbolic link', 'hard link', 'numbered'])
def test_a_recovery_never_replaces_the_photograph_or_the_mask(tmp_path, monkeypatch, flag, way):
    """By whatever path or link. There is not even a run to read."""
    monkeypatch.chdir(tmp_path)
    names = {'input': 'photo-1.png', 'mask': 'mask-1.png'}
    for name in names.values():
        photograph(tmp_path / name, 40, 36)
    file, output = tmp_path / names[flag], pathlib.Path('out.png')
    if way == 'same':
        output = file
    elif way == 'dotted':
        output = pathlib.Path('..', tmp_path.name, file.name)
    elif way == 'symbolic link':
        output.symlink_to(file)
    elif way == 'hard link':
        output.hardlink_to(file)
    else:
        output = pathlib.Path(file.name.replace('-1', ''))
    before = file.read_bytes()
    with pytest.raises(UserError, match=f'--output must name another file than --{flag}, got'):
        recovery.recover_file(
            Config(),
            tmp_path / 'no run',
            input_file=names['input'],
            mask_file=names['mask'],
            output_file=output,
            num_recoveries=2 if way == 'numbered' else 1,
        )
    assert file.read_bytes() == before


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_mask_is_turned_as_the_photograph_is(tmp_path, orientation):
    """Also where other metadata is damaged, which Pillow's own reading of it does not survive."""
    photo, hole = pictures_with_a_hole()
    exif = b'Exif\0\0' + struct.pack('<2sHLH', b'II', 42, 8, 2)
    exif += struct.pack('<HHLHH', 0x0112, 3, 1, orientation, 0)
    exif += struct.pack('<HHLL', 0x011A, 10, 1, 38) + struct.pack('<Lll', 0, -1, 0)  # -1 / 0.
    erased(np.minimum(photo, 254), hole, 'RGBA').save(tmp_path / 'erased.png', exif=exif)
    image = read_image(tmp_path / 'erased.png', 1)
    upright = np.asarray(image) == 255  # What is transparent is laid on white.
    found = np.asarray(recovery.read_mask(tmp_path / 'erased.png')) > 0
    np.testing.assert_array_equal(found, upright)
    assert found.shape == (hole.shape if orientation < 5 else hole.shape[::-1])
