import dataclasses
import errno
import os
import pathlib

import numpy as np
import pytest
from helpers.runs import train

from vaebm_jax import load
from vaebm_jax.runtime.atomic_files import (
    append,
    kept,
    local_folder,
    make_folder,
    write_atomically,
    write_json,
)
from vaebm_jax.runtime.errors import UserError


def test_write_atomically_leaves_whole_files_alone(tmp_path):
    path = tmp_path / 'file'
    write_atomically(path, b'first')
    with pytest.raises(TypeError):
        write_atomically(path, 'no bytes')
    assert path.read_bytes() == b'first'
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']


@pytest.fixture
def calls(monkeypatch):
    """What is synced and renamed, in order: `('sync', inode)`, `('replace', inode, path)`."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def record_sync(handle):
        fsync(handle)
        calls.append(('sync', os.fstat(handle).st_ino))

    def record_replace(source, target):
        calls.append(('replace', os.stat(source).st_ino, pathlib.Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', record_sync)
    monkeypatch.setattr(os, 'replace', record_replace)
    return calls


def inode(path):
    return os.stat(path).st_ino


def assert_synced(calls, path):
    """The content before the rename, the folder after it."""
    (index,) = [i for i, call in enumerate(calls) if call[0] == 'replace' and call[2] == path]
    assert ('sync', calls[index][1]) in calls[:index]
    assert ('sync', inode(path.parent)) in calls[index:]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, calls):
    path = tmp_path / 'folder' / 'file.json'
    write_json(path, {'a': 1})
    assert_synced(calls, path)
    assert ('sync', inode(tmp_path)) in calls, 'the folder was made'
    calls.clear()
    write_atomically(path, b'other')
    assert [call[0] for call in calls] == ['sync', 'replace', 'sync']


def test_what_is_added_is_on_the_disk(tmp_path, calls):
    path = tmp_path / 'rows'
    append(path, b'1\n')
    assert calls == [('sync', inode(path)), ('sync', inode(tmp_path))]
    append(path, b'2\n')
    assert calls[2:] == [('sync', inode(path))] and path.read_bytes() == b'1\n2\n'


def test_new_folders_are_on_the_disk(tmp_path, calls):
    make_folder(tmp_path / 'a' / 'b')
    make_folder(tmp_path / 'a' / 'b')
    assert sorted(calls) == sorted([('sync', inode(tmp_path)), ('sync', inode(tmp_path / 'a'))])
    with pytest.raises(FileNotFoundError):
        make_folder(tmp_path / 'c' / 'd', parents=False)


def test_a_run_is_on_the_disk(tiny_config, tmp_path, calls):
    """Its config, pictures and rows, and all of a checkpoint before its digests."""
    run = tmp_path / 'runs' / 'run'
    train(dataclasses.replace(tiny_config, num_steps=2, sample_every=2), run)
    for path in (run / 'config.json', run / 'samples' / 'step_00000002.png'):
        assert_synced(calls, path)
    assert {
        ('sync', inode(path)) for path in (tmp_path, run.parent, run, run / 'metrics.jsonl')
    } <= {*calls}
    checkpoint = run / 'checkpoints' / '2'
    (index,) = [i for i, call in enumerate(calls) if call[-1] == checkpoint / 'digests.json']
    saved = {path for path in checkpoint.rglob('*')} - {checkpoint / 'digests.json'}
    assert len(saved) > 10
    for path in (*saved, checkpoint, checkpoint.parent):
        assert ('sync', inode(path)) in calls[:index], path


@pytest.mark.parametrize('refusal', ['EINVAL', 'ENOTSUP', 'EACCES', 'ENOSYS'])
def test_file_systems_without_sync_do_not_end_the_work(tmp_path, monkeypatch, refusal):
    def refuse(handle):
        raise OSError(getattr(errno, refusal), refusal)

    monkeypatch.setattr(os, 'fsync', refuse)
    write_atomically(tmp_path / 'folder' / 'file', b'content')
    append(tmp_path / 'rows', b'row')
    assert (tmp_path / 'folder' / 'file').read_bytes() == b'content'


def test_content_that_does_not_reach_the_disk_replaces_nothing(tmp_path, monkeypatch):
    path = tmp_path / 'file'
    write_atomically(path, b'first')

    def fail(handle):
        raise OSError(errno.EIO, 'Input/output error')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(UserError, match='file cannot be written .Input/output error'):
        write_atomically(path, b'second')
    assert path.read_bytes() == b'first' and list(tmp_path.iterdir()) == [path]


def test_kept_arrays_are_made_once_and_again_where_they_are_not_whole(tmp_path):
    made = []

    def make():
        made.append(len(made))
        return {'x': np.arange(3) + made[-1]}

    path = tmp_path / 'folder' / 'x.npz'
    for _ in range(2):
        np.testing.assert_array_equal(kept(path, make)['x'], [0, 1, 2])
    path.write_bytes(path.read_bytes()[:40])
    for _ in range(2):
        np.testing.assert_array_equal(kept(path, make)['x'], [1, 2, 3])
    assert made == [0, 1]


def test_a_bucket_is_refused_where_a_run_starts_or_is_read(tiny_config):
    for use in (lambda: train(tiny_config, 'gs://bucket/run'), lambda: load('gs://bucket/run')):
        with pytest.raises(
            UserError, match="a folder on a disk .* got 'gs://bucket/run': a bucket"
        ):
            use()
    assert local_folder('runs/digits') == pathlib.Path('runs/digits')
