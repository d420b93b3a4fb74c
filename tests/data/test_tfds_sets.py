"""Folders of TFDS in every state: one line each, whose command works as it stands."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from helpers.commands import ROOT

from vaebm_jax.config import DataConfig
from vaebm_jax.data.loading import load_images
from vaebm_jax.runtime.errors import UserError

# Runs a command's code with TFDS's own MNIST, but with images of ours in place of the download.
PREPARE = """
import io, os, sys
import numpy as np
from PIL import Image
from tensorflow_datasets.image_classification.mnist import MNIST

def examples(split):
    for index in range(20):
        if split == 'test' and index == 10 and 'DIES' in os.environ:
            os._exit(9)
        file = io.BytesIO()
        Image.fromarray(np.full((28, 28), index, np.uint8)).save(file, 'png')
        yield index, {'image': file.getvalue(), 'label': index % 10}

MNIST._split_generators = lambda self, manager: {s: examples(s) for s in ('train', 'test')}
exec(sys.argv[1])
"""


def prepare(code, cwd, **environment):
    return subprocess.run(
        [sys.executable, '-c', PREPARE, code],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """A whole set, and one whose preparation was killed."""
    folder = tmp_path_factory.mktemp('prepared')
    for root, environment in (('whole', {}), ('killed', {'DIES': '1'})):
        code = (
            'import tensorflow_datasets as tfds; tfds.data_source("mnist", '
            f'data_dir={root!r}, builder_kwargs={{"file_format": "array_record"}})'
        )
        status = prepare(code, folder, **environment).returncode
        assert status == (9 if environment else 0)
    return folder


def as_tfrecord(version):
    """What tfds.load leaves."""
    info = json.loads((version / 'dataset_info.json').read_text())
    (version / 'dataset_info.json').write_text(json.dumps(info | {'fileFormat': 'tfrecord'}))
    for path in version.glob('*.array_record*'):
        path.rename(version / path.name.replace('array_record', 'tfrecord'))


def without_test(version):
    info = json.loads((version / 'dataset_info.json').read_text())
    info['splits'] = [split for split in info['splits'] if split['name'] == 'train']
    (version / 'dataset_info.json').write_text(json.dumps(info))


def older_tfrecord(version):
    as_tfrecord(version)
    version.rename(version.parent / '1.0.0')


def with_bad_json(version):
    (version / 'dataset_info.json').write_text('{"name": "mni')


STATES = {
    'TFRecord': (
        as_tfrecord,
        'mnist in tfds cannot be read (version 3.0.1 is stored as TFRecord, which needs TensorFlow',
    ),
    'older': (older_tfrecord, 'version 1.0.0 is stored as TFRecord, which'),
    'no split': (without_test, 'version 3.0.1 has no split test, only [train]'),
    'no info': (
        lambda version: (version / 'dataset_info.json').unlink(),
        'version 3.0.1 is incomplete: it has no readable dataset_info.json',
    ),
    'half an info': (with_bad_json, 'version 3.0.1 is incomplete'),
    'no features': (
        lambda version: (version / 'features.json').unlink(),
        'cannot be read (version 3.0.1 fails: ',
    ),
    'no shard': (
        lambda version: next(version.glob('*-test.*')).unlink(),
        'cannot be read (version 3.0.1 fails: ',
    ),
    'half a shard': (
        lambda version: os.truncate(next(version.glob('*-test.*')), 60),
        'cannot be read (version 3.0.1 fails: ',
    ),
    'nothing': (shutil.rmtree, 'mnist is not prepared in {root} (data.dir, or TFDS_DATA_DIR): pip'),
}


def refused(root):
    """The line of a folder, the code of its command, and the folder to name afterwards."""
    with pytest.raises(UserError) as caught:
        load_images(DataConfig('mnist', str(root), image_size=28), 'test')
    line = str(caught.value)
    assert '\n' not in line
    assert re.match('mnist (is not prepared )?in ', line) and f'in {root} ' in line
    command = re.search(r'python -c ("(?:\\.|[^"\\])*")', line)[1]
    code = subprocess.run(
        ['sh', '-c', f'printf %s {command}'], capture_output=True, text=True, check=True
    ).stdout
    flag = re.search(r' and then add (.*)$', line)
    flag = flag and subprocess.run(
        ['sh', '-c', f'printf %s {flag[1]}'], capture_output=True, text=True, check=True
    ).stdout.removeprefix('--config.data.dir=')
    return line, code, flag


def check_works(code, place, cwd):
    """The command prepares the set, and it is read from the folder that the line names."""
    result = prepare(code, cwd)
    assert result.returncode == 0, result.stderr
    for split in ('train', 'test'):
        images = load_images(DataConfig('mnist', str(place), image_size=28), split)
        assert images.shape == (20, 28, 28, 1)
        np.testing.assert_array_equal(np.sort(images[:, 3, 5, 0]), np.arange(20))


@pytest.mark.parametrize('state', STATES)
def test_the_advice_works_as_it_stands(prepared, tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(prepared / 'whole' / 'mnist', tmp_path / 'tfds' / 'mnist')
    damage, told = STATES[state]
    damage(tmp_path / 'tfds' / 'mnist' / '3.0.1')
    before = sorted(tmp_path.rglob('*'))
    line, code, place = refused('tfds')
    assert told.format(root='tfds') in line
    assert sorted(tmp_path.rglob('*')) == before
    assert place == (None if state == 'nothing' else 'tfds/array_record')
    check_works(code, place or 'tfds', tmp_path)
    if state == 'TFRecord':  # The same line again: its command has nothing to do, and works.
        check_works(*refused('tfds')[1:], tmp_path)


def test_a_preparation_that_was_killed_goes_on_by_the_advice(prepared, tmp_path):
    root = tmp_path / 'tfds'
    shutil.copytree(prepared / 'killed', root)
    line, code, place = refused(root)
    assert re.search(
        r'its preparation did not finish \(incomplete\.\w+_3\.0\.1 can be deleted', line
    )
    assert place is None
    check_works(code, root, tmp_path)


def test_the_advice_is_quoted(prepared, tmp_path):
    name = 'ü it\'s "b" $HOME `c` \\n'
    shutil.copytree(prepared / 'whole', tmp_path / name)
    as_tfrecord(tmp_path / name / 'mnist' / '3.0.1')
    _, code, place = refused(tmp_path / name)
    assert place == str(tmp_path / name / 'array_record')
    check_works(code, place, tmp_path)


def test_a_version_beside_others_is_read_where_it_is_array_record(prepared, tmp_path, capsys):
    """Of any number; a newer one that cannot be read is told."""
    whole = prepared / 'whole' / 'mnist' / '3.0.1'
    shutil.copytree(whole, tmp_path / 'mnist' / '2.9.0')
    config = DataConfig('mnist', str(tmp_path), image_size=28)
    assert len(load_images(config, 'test')) == 20
    assert capsys.readouterr().err == ''
    shutil.copytree(whole, tmp_path / 'mnist' / '10.0.0')
    as_tfrecord(tmp_path / 'mnist' / '10.0.0')
    assert len(load_images(config, 'test')) == 20
    assert capsys.readouterr().err == (
        'data: mnist in version 2.9.0, since version 10.0.0 is stored as TFRecord, which needs '
        'TensorFlow to read\n'
    )


def test_a_set_in_both_formats_is_read(prepared, tmp_path):
    """As `tfds convert_format` leaves it."""
    version = tmp_path / 'mnist' / '3.0.1'
    shutil.copytree(prepared / 'whole' / 'mnist' / '3.0.1', version)
    info = json.loads((version / 'dataset_info.json').read_text())
    info |= {'fileFormat': 'tfrecord', 'alternativeFileFormats': ['array_record']}
    (version / 'dataset_info.json').write_text(json.dumps(info))
    assert len(load_images(DataConfig('mnist', str(tmp_path), image_size=28), 'test')) == 20


def test_another_folder_is_named_where_none_can_be_written():
    """By a person who may not write to the folder, nor to a set in it."""
    folder = pathlib.Path(tempfile.mkdtemp())  # Whose parents anyone may enter.
    try:
        for path in ('locked', 'half/mnist', 'home'):
            (folder / path).mkdir(parents=True)
        (folder / 'file').touch()
        for path, mode in (('', 0o755), ('half', 0o777), ('home', 0o777), ('half/mnist', 0o555)):
            (folder / path).chmod(mode)
        (folder / 'locked').chmod(0o555)
        code = (
            'import os, pathlib, sys\n'
            'from vaebm_jax.data import tfds_sets\n'
            'if not os.getuid():\n'
            '    os.setuid(65534)\n'
            'for root in sys.argv[1:]:\n'
            '    print(tfds_sets._place(pathlib.Path(root), "mnist"))\n'
        )
        roots = [str(folder / name) for name in ('locked', 'half', 'file', 'home', 'no/such')]
        result = subprocess.run(
            [sys.executable, '-c', code, *roots],
            cwd=ROOT,
            env=os.environ | {'HOME': str(folder / 'home'), 'PYTHONPATH': str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        home = f'{folder}/home/tensorflow_datasets'
        places = [home, f'{folder}/half/array_record', home, f'{folder}/home', home]
        assert result.stdout.split() == places
    finally:
        shutil.rmtree(folder)
