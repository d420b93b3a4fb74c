"""Which images of a folder are held out, and a run whose folder is not what it was."""

import dataclasses
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from helpers.runs import assert_same_states
from PIL import Image

from vaebm_jax.config import DataConfig, EnergyConfig, ScheduleConfig
from vaebm_jax.data.folder import Folder, shared_out
from vaebm_jax.data.loading import load_images
from vaebm_jax.evaluation import likelihood, scores
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training import checkpoints
from vaebm_jax.training.loop import train

SPLITS = ('train', 'val', 'test')


def settings(val_share=0.0, test_share=0.0, folder='set', **others):
    return DataConfig(
        'folder', str(folder), 8, val_share=val_share, test_share=test_share, **others
    )


def named(rng, count):
    return [f'{rng.integers(3)}/{number}.png' for number in rng.permutation(10**6)[:count]]


def members(names, data):
    """The names of each split."""
    return {split: {names[i] for i in rows} for split, rows in shared_out(names, data).items()}


SHARES = [
    (0.0, 0.2),
    (0.25, 1 / 3),
    (0.01, 0.01),
    (0.49, 0.49),
    (0.6, 0.3),
    (0.1, 0.0),
    (0.9, 0.05),
]


@pytest.mark.parametrize('val_share, test_share', SHARES)
def test_shares_are_exact_and_every_side_has_an_image(val_share, test_share):
    data, rng = settings(val_share, test_share), np.random.default_rng(0)
    sides = 1 + (val_share > 0) + (test_share > 0)
    for total in range(sides, 60):
        split = members(names := named(rng, total), data)
        assert set().union(*split.values()) == set(names)
        sizes = {name: len(inside) for name, inside in split.items()}
        assert sum(sizes.values()) == total and sizes['train'] >= 1
        rounded = {'val': round(total * val_share), 'test': round(total * test_share)}
        for name, share in (('val', val_share), ('test', test_share)):
            assert (sizes[name] >= 1) == (share > 0)
            if min(rounded['val'] or not val_share, rounded['test'] or not test_share) and (
                sum(rounded.values()) < total
            ):
                assert sizes[name] == rounded[name]


def test_membership_is_the_rank_of_a_hash_of_the_name():
    """By a second implementation; another salt would move the images of every folder."""
    names = [f'{index:03d}.png' for index in range(100)]
    hashes = {
        name: hashlib.sha256(b'vaebm_jax split 1\0' + name.encode()).digest() for name in names
    }
    ranked = sorted(names, key=hashes.get)
    split = members(names, settings(0.1, 0.2))
    assert split == {
        'val': set(ranked[:10]),
        'train': set(ranked[10:80]),
        'test': set(ranked[80:]),
    }
    assert members(names[::-1], settings(0.1, 0.2)) == split
    assert ranked[:3] == ['032.png', '035.png', '068.png']


@pytest.mark.parametrize('val_share, test_share', SHARES)
def test_one_file_more_or_less_moves_at_most_one_other_over_a_boundary(val_share, test_share):
    data, rng = settings(val_share, test_share), np.random.default_rng(1)
    sides = 1 + (val_share > 0) + (test_share > 0)
    for total in [*range(sides, 40), 101, 200]:
        names = named(rng, total + 1)
        less, more = members(names[1:], data), members(names, data)
        moved = 0
        for held_out in ('val', 'test'):
            others = more[held_out] - {names[0]}
            assert len(others - less[held_out]) + len(less[held_out] - others) <= 1
            moved += others != less[held_out]
        assert moved <= (val_share > 0) + (test_share > 0)
        assert not (less['val'] & more['test'] or less['test'] & more['val'])


@pytest.mark.parametrize('shares, least', [((0.0, 0.5), 2), ((0.1, 0.0), 2), ((0.3, 0.3), 3)])
def test_a_set_that_is_too_small_is_told_so(shares, least):
    names = [f'{index}.png' for index in range(least)]
    assert (
        sorted(map(len, members(names, settings(*shares)).values()))
        == [0] * (3 - least) + [1] * least
    )
    with pytest.raises(UserError, match=f'at least {least} images .*, got {least - 1}'):
        shared_out(names[1:], settings(*shares))


def make_folder(folder, count=20):
    for index in range(count):
        path = folder / ('a', 'b')[index % 2] / f'{index:03d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def test_membership_does_not_depend_on_where_the_folder_is(tmp_path):
    first, second = make_folder(tmp_path / 'set'), tmp_path / 'elsewhere' / 'other'
    shutil.copytree(first, second)
    odd = os.fsencode(second) + b'/\xff\xc3.png'
    for split in SPLITS:
        names = [
            [path.relative_to(folder) for path in Folder(settings(0.2, 0.2, folder), split).files]
            for folder in (first, second)
        ]
        assert names[0] == names[1] == sorted(names[0])
    os.rename(os.fsencode(second / 'a' / '000.png'), odd)
    assert len(load_images(settings(0.2, 0.2, second))) == 12


def test_a_split_without_a_share_is_refused(tmp_path):
    folder = make_folder(tmp_path / 'set')
    with pytest.raises(UserError, match='data.val_share must be above 0 where images of val'):
        Folder(settings(0.0, 0.2, folder), 'val')


@pytest.fixture
def config(tiny_config, tmp_path):
    """Six steps on a shared folder of twenty images."""
    return dataclasses.replace(
        tiny_config,
        num_steps=4,
        energy=EnergyConfig(reference_std=1.0),
        schedule=ScheduleConfig('constant'),
        data=settings(0.0, 0.2, make_folder(tmp_path / 'set')),
    )


def longer(config, **data):
    return dataclasses.replace(config, num_steps=6, data=dataclasses.replace(config.data, **data))


def on_disk(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def add(folder):
    shutil.copy(folder / 'a' / '000.png', folder / 'new.png')


def remove(folder):
    (folder / 'b' / '001.png').unlink()


def rename(folder):
    (folder / 'b' / '001.png').rename(folder / 'b' / '001b.png')


def move(folder):
    (folder / 'b' / '001.png').rename(folder / 'a' / '001.png')


@pytest.mark.parametrize('resident_bytes', [2**20, 0])
@pytest.mark.parametrize(
    'change, said',
    [
        (add, 'held 20 images before and holds 21 now'),
        (remove, 'held 20 images before and holds 19 now'),
        (rename, 'holds 20 images as before, but with other names'),
        (move, 'holds 20 images as before, but with other names'),
    ],
)
def test_a_folder_that_changed_is_refused(config, tmp_path, change, said, resident_bytes):
    config = longer(config, resident_bytes=resident_bytes)
    train(dataclasses.replace(config, num_steps=4), tmp_path / 'run')
    change(tmp_path / 'set')
    before = on_disk(tmp_path / 'run')
    with pytest.raises(
        UserError, match=rf'cannot be resumed.*{said}.*--config.init_from='
    ) as error:
        train(config, tmp_path / 'run')
    assert '\n' not in str(error.value)
    assert on_disk(tmp_path / 'run') == before
    train(dataclasses.replace(config, num_steps=4), tmp_path / 'run')  # It is finished.
    new = dataclasses.replace(config, init_from=str(tmp_path / 'run'))
    assert int(train(new, tmp_path / 'new').step) == 6


def test_a_folder_with_splits_may_get_other_test_images(config, tmp_path):
    for split in ('train', 'test'):
        make_folder(tmp_path / 'splits' / split)
    config = longer(config, dir=str(tmp_path / 'splits'), test_share=0.0)
    train(dataclasses.replace(config, num_steps=4), tmp_path / 'run')
    add(tmp_path / 'splits' / 'test')
    train(config, tmp_path / 'run')
    add(tmp_path / 'splits' / 'train')
    with pytest.raises(UserError, match='held 20 images before and holds 21 now'):
        train(dataclasses.replace(config, num_steps=7), tmp_path / 'run')


def test_the_same_images_elsewhere_go_on_bit_for_bit(config, tmp_path):
    train(config, tmp_path / 'run')
    (tmp_path / 'set').rename(tmp_path / 'moved')
    moved = longer(config, dir=str(tmp_path / 'moved'))
    states = train(moved, tmp_path / 'run')
    assert_same_states(states, train(moved, tmp_path / 'other'))


def as_before(workdir):
    """Makes its checkpoints what they were before the names of images were kept."""
    for folder in (workdir / 'checkpoints').iterdir():
        path = folder / '_CHECKPOINT_METADATA'
        metadata = json.loads(path.read_text())
        del metadata['custom_metadata']['files']
        path.write_text(json.dumps(metadata))
        (folder / 'digests.json').write_text(json.dumps(checkpoints.digests(folder)))


def test_a_run_from_before_is_scored_with_a_warning_and_not_gone_on_with(config, tmp_path, capsys):
    workdir = tmp_path / 'run'
    train(config, workdir)
    capsys.readouterr()
    scores.evaluate(config, workdir, num_samples=20)
    assert 'warning' not in capsys.readouterr().err

    as_before(workdir)
    before = on_disk(workdir)
    match = 'cannot be resumed: it is from a version that .* --config.init_from='
    with pytest.raises(UserError, match=match):
        train(longer(config), workdir)
    assert on_disk(workdir) == before
    train(config, workdir)  # It is finished.
    capsys.readouterr()
    for score, number in (
        (scores.evaluate, {}),
        (likelihood.evaluate_likelihood, {'num_temperatures': 20}),
    ):
        score(config, workdir, num_samples=20, **number)
        said = capsys.readouterr().err
        assert said.count('may have trained on images of val and test: it is from a version') == 1
    train(dataclasses.replace(longer(config), init_from=str(workdir)), tmp_path / 'new')


def test_a_changed_folder_is_told_where_it_is_scored(config, tmp_path, capsys):
    train(config, tmp_path / 'run')
    add(tmp_path / 'set')
    scores.evaluate(config, tmp_path / 'run', num_samples=20)
    said = capsys.readouterr().err
    assert 'val and test: data.dir held 20 images before and holds 21 now' in said


def test_test_images_that_were_trained_on_are_told(config, tmp_path, capsys):
    config = dataclasses.replace(config, data=settings(folder=tmp_path / 'set'))
    train(config, tmp_path / 'run')
    scores.evaluate(config, tmp_path / 'run', num_samples=20)
    assert 'warning: no image is held out (data.test_share)' in capsys.readouterr().err


def test_other_data_from_before_goes_on(tiny_config, tmp_path):
    train(tiny_config, tmp_path / 'run')
    as_before(tmp_path / 'run')
    states = train(dataclasses.replace(tiny_config, num_steps=8), tmp_path / 'run')
    assert int(states.step) == 8


@pytest.mark.parametrize('is_flipped', [True, False])
def test_what_a_damaged_checkpoint_says_of_its_files_does_not_count(config, tmp_path, is_flipped):
    train(config, tmp_path / 'run')
    path = tmp_path / 'run' / 'checkpoints' / '4' / '_CHECKPOINT_METADATA'
    text = path.read_text()
    path.write_text(text.replace('"count": 20', '"count": 24') if is_flipped else text[:40])
    assert path.read_text() != text
    assert_same_states(
        train(longer(config), tmp_path / 'run'), train(longer(config), tmp_path / 'b')
    )


def test_a_missing_split_is_told_before_anything_is_drawn(config, tmp_path):
    config = dataclasses.replace(config, data=settings(folder=tmp_path / 'set'))
    (tmp_path / 'set' / 'a').rename(tmp_path / 'set' / 'train')
    shutil.rmtree(tmp_path / 'set' / 'b')
    train(config, tmp_path / 'run')
    before = on_disk(tmp_path / 'run')
    with pytest.raises(UserError, match="split must be one of train of folder, got 'test'"):
        scores.evaluate(config, tmp_path / 'run', num_samples=20)
    assert on_disk(tmp_path / 'run') == before
