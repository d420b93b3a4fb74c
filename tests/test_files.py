import pytest

from vaebm_jax.files import write_atomically


def test_write_atomically_leaves_whole_files_alone(tmp_path):
    path = tmp_path / 'file'
    write_atomically(path, b'first')
    with pytest.raises(TypeError):
        write_atomically(path, 'no bytes')
    assert path.read_bytes() == b'first'
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']
