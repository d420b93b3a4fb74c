import pathlib

import numpy as np
import pytest

from vaebm_jax import load
from vaebm_jax.errors import UserError
from vaebm_jax.files import kept, local_folder, write_atomically
from vaebm_jax.train import train


def test_write_atomically_leaves_whole_files_alone(tmp_path):
    path = tmp_path / 'file'
    write_atomically(path, b'first')
    with pytest.raises(TypeError):
        write_atomically(path, 'no bytes')
    assert path.read_bytes() == b'first'
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']


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
