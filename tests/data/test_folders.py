"""Folders as people have them: what is an image of them, counted a second time by other means."""

import os

import numpy as np
import pytest
from PIL import Image

from vaebm_jax.config import DataConfig
from vaebm_jax.data.folder import Folder
from vaebm_jax.data.listing import image_files
from vaebm_jax.data.loading import held_out, load_images
from vaebm_jax.runtime.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
FORMATS = {
    'png': 'PNG',
    'JPG': 'JPEG',
    'jfif': 'JPEG',
    'jpe': 'JPEG',
    'tif': 'TIFF',
    'tiff': 'TIFF',
    'gif': 'GIF',
    'ppm': 'PPM',
    'jp2': 'JPEG2000',
    'webp': 'WEBP',
    'tga': 'TGA',
}


def save(path, suffix='png'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(path, FORMATS[suffix])


def settings(folder, **others):
    return DataConfig('folder', str(folder), 8, num_channels=3, **others)


def loaded(folder, capsys, **others):
    """How many images there are, and what is said."""
    num_images = len(load_images(settings(folder, **others)))
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and said.startswith(f'data: {num_images} images of folder')
    return num_images, said


def test_hidden_and_system_folders_are_no_images(tmp_path, capsys):
    for index in range(4):
        save(tmp_path / 'cats' / f'{index}.png')
    assert loaded(tmp_path, capsys) == (4, 'data: 4 images of folder\n')
    places = ['.ipynb_checkpoints', 'cats/.thumbnails', '__MACOSX/cats', '@eaDir/a.png', '.git/x']
    places += ['lost+found', '$RECYCLE.BIN', 'System Volume Information', 'cats/#recycle/old']
    for place in places:
        save(tmp_path / place / 'copy.png')
    (tmp_path / 'cats' / 'Thumbs.db').write_bytes(b'small copies')
    (tmp_path / 'labels.csv').write_text('0, cat')
    num_images, said = loaded(tmp_path, capsys)
    assert num_images == 4
    assert 'left out 11 files: 10 hidden or system (.png 9, .db 1), ' in said
    assert said.endswith('1 not pictures (.csv 1)\n')


def test_linked_folders_are_followed_once_and_without_circles(tmp_path, capsys):
    store, folder = tmp_path / 'store', tmp_path / 'set'
    for index in range(6):
        save(store / 'deep' / f'{index}.png')
    for index in range(4):
        save(folder / 'cats' / f'{index}.png')
    links = {'dogs': store, 'again': store / 'deep', 'cats/self': folder, 'up': tmp_path}
    links |= {'a': folder / 'cats', '.hidden': store, 'one.png': folder / 'cats' / '0.png'}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (store / 'back').symlink_to(folder / 'cats')
    (folder / 'broken.png').symlink_to('nowhere')
    num_images, said = loaded(folder, capsys)
    assert num_images == 10
    assert '1 broken links or not files (.png 1), 1 links to what is counted (.png 1)' in said
    names = {os.path.relpath(path, folder) for path in Folder(settings(folder), 'train').files}
    assert {f'cats/{index}.png' for index in range(4)} <= names


def test_every_suffix_of_a_still_picture_is_read(tmp_path, capsys):
    for suffix in FORMATS:
        save(tmp_path / f'x.{suffix}', suffix)
    for name in ('a.eps', 'a.pdf', 'a.h5', 'a.mpg', 'a.emf', 'README', 'a.txt', 'b.TXT'):
        (tmp_path / name).write_text('no picture')
    num_images, said = loaded(tmp_path, capsys)
    assert num_images == len(FORMATS)
    assert 'left out 8 files: 8 not pictures (.txt 2, ' in said


@pytest.mark.parametrize('names', ['Train Test', 'training valid', 'TRAIN validation testing'])
def test_folders_named_like_splits_are_taken_for_them_and_that_is_said(tmp_path, capsys, names):
    kinds = {'tra': 'train', 'val': 'val', 'tes': 'test'}
    for count, name in enumerate(names.split(), 2):
        for index in range(count):
            save(tmp_path / name / f'{index}.png')
    for count, name in enumerate(names.split(), 2):
        split = kinds[name[:3].lower()]
        assert len(Folder(settings(tmp_path), split)) == count
    num_images, said = loaded(tmp_path, capsys)
    assert num_images == 2
    for name in names.split():
        assert f'{name}/ for {kinds[name[:3].lower()]}' in said
    assert held_out(settings(tmp_path)) == ('val' if 'val' in names else 'test')


def test_what_stands_beside_the_splits_is_left_out_and_said(tmp_path, capsys):
    for place in ('train', 'Train', 'training', 'test', '.'):
        save(tmp_path / place / 'a.png')
    num_images, said = loaded(tmp_path, capsys)
    assert num_images == 1
    assert 'left out 3 files: 3 beside the splits (.png 3)' in said
    os.rename(tmp_path / 'train', tmp_path / 'tests')
    assert loaded(tmp_path, capsys)[0] == 5  # Train could be a class of what stands beside it.
    assert 'treated Train/, test/, training/ as ordinary images' in loaded(tmp_path, capsys)[1]
    for path in (tmp_path / 'tests').iterdir():
        path.unlink()
    (tmp_path / 'tests').rmdir()
    with pytest.raises(UserError, match='one folder for train, got Train/ and training/ in'):
        load_images(settings(tmp_path))


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    save(tmp_path / '.cache' / 'a.png')
    (tmp_path / 'a.npy').write_text('no picture')
    with pytest.raises(UserError, match=r'found none in .*left out 2 files: 1 hidden or system'):
        load_images(settings(tmp_path))


def make_tree(random, root, store):
    """Files and links by chance, 0 to 3 in a folder."""
    names = ['a', 'Ünï', '猫', '.hid', '__MACOSX', '@eaDir', 'b c', '$RECYCLE.BIN', 'lost+found']
    suffixes = ['.png', '.JPG', '.jfif', '.tif', '.txt', '', '.PNG~', '.eps', '.avi', '.npy']
    folders = [root, store]
    for folder in folders:
        folder.mkdir()
        for index in range(random.integers(0, 4)):
            prefix = '.' if random.random() < 0.2 else 'é'
            (folder / f'{prefix}{index}{random.choice(suffixes)}').touch()
        for name in random.choice(names, random.integers(0, 4), replace=False):
            if len(folders) < 25:
                folders.append(folder / str(name))
    for index, folder in enumerate(folders):
        target = folders[random.integers(len(folders))]
        if random.random() < 0.5:
            (folder / f'link{index}').symlink_to(target)
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    for index, path in enumerate(files[:4]):
        (root / f'linked{index}{path.suffix}').symlink_to(path)


def counted(folder, top, chain=()):
    """The real paths of the images, by recursion into every path, however it winds."""
    found, real = set(), folder.resolve()
    if real in chain or (folder != top and top.resolve().is_relative_to(real)):
        return found
    for path in folder.iterdir():
        system = {'__macosx', '@eadir', '$recycle.bin', 'lost+found'}
        if path.name[0] == '.' or path.name.lower() in system:
            continue
        if path.is_dir():
            found |= counted(path, top, (*chain, real))
        elif path.is_file() and path.suffix.lower() in {'.png', '.jpg', '.jfif', '.tif'}:
            found.add(path.resolve())
    return found


def test_generated_folders_are_counted_as_a_second_count_does(tmp_path):
    random = np.random.default_rng(0)
    sizes = []
    for index in range(200):
        root = tmp_path / f'{index}'
        make_tree(random, root, tmp_path / f'store{index}')
        files, left_out = image_files(root)
        assert len(files) == len({path.resolve() for path in files})
        assert {path.resolve() for path in files} == counted(root, root)
        assert all(root in path.parents for path in files) and files == sorted(files)
        plain = sum(len(names) for _, _, names in os.walk(root))
        assert plain <= len(files) + left_out.total()
        sizes.append(len(files))
    assert min(sizes) == 0 and max(sizes) > 10
