import jax
import numpy as np
import pytest

from vaebm_jax.checkpoints import checkpoint_manager, damage, load
from vaebm_jax.config import to_json
from vaebm_jax.errors import UserError
from vaebm_jax.files import write_atomically
from vaebm_jax.train import train


def test_load_says_what_is_missing(tiny_config, tmp_path):
    with pytest.raises(UserError, match=r'workdir must hold a run, but .*config\.json'):
        load(tmp_path)
    write_atomically(tmp_path / 'config.json', to_json(tiny_config).encode())
    with pytest.raises(UserError, match='no checkpoint yet'):
        load(tmp_path)
    with checkpoint_manager(tmp_path):
        pass
    with pytest.raises(UserError, match='no checkpoint yet'):
        load(tmp_path)
    write_atomically(tmp_path / 'config.json', b'{"seed": 1')
    with pytest.raises(UserError, match=r'config\.json: not JSON'):
        load(tmp_path)
    write_atomically(tmp_path / 'config.json', b'{"langevin": {"num_stepz": 1}}')
    with pytest.raises(UserError, match='no config field langevin.num_stepz'):
        load(tmp_path)


def damages(folder):
    """Every file of a checkpoint truncated, deleted and with one bit changed, each in turn."""
    for path in sorted(folder.rglob('*')):
        if path.is_file() and path.name != 'digests.json':
            whole = path.read_bytes()
            middle = len(whole) // 2
            if whole:
                flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
                for content in (whole[:middle], flipped):
                    path.write_bytes(content)
                    yield path
                    path.write_bytes(whole)
            path.unlink()
            yield path
            path.write_bytes(whole)


def test_no_damage_goes_unseen(tiny_config, tmp_path):
    train(tiny_config, tmp_path)
    folder = tmp_path / 'checkpoints' / '6'
    assert damage(folder) == ''
    count = 0
    for path in damages(folder):
        count += 1
        assert damage(folder).startswith(path.relative_to(folder).as_posix())
    assert count > 20 and damage(folder) == ''
    (folder / 'digests.json').write_bytes(b'[')
    assert damage(folder) == 'digests.json cannot be read'


def test_a_damaged_checkpoint_is_not_used(tiny_config, tmp_path, capsys):
    """The run goes on from the one before, to the same end; `strict` and `load` refuse."""
    run = tmp_path / 'run'
    train(tiny_config, run)
    alone = jax.tree.leaves(load(run)[0])
    for path in (run / 'checkpoints' / '6').rglob('*'):
        if path.is_file() and path.name != 'digests.json':
            path.write_bytes(path.read_bytes()[1:])
    with pytest.raises(UserError, match=r'checkpoints/6 is damaged: .* of \[2, 4, 6\], --step'):
        load(run)
    assert int(load(run, 4)[0].energy.step) == 4
    with pytest.raises(UserError, match='--resume=strict goes on from the newest checkpoint alone'):
        train(tiny_config, run, strict=True)
    capsys.readouterr()
    again = train(tiny_config, run)
    errors = capsys.readouterr().err
    assert 'checkpoints/6 is damaged: ' in errors and 'resume: from step 4' in errors
    for ours, theirs in zip(jax.tree.leaves(again), alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(load(run)[0].energy.step) == 6


def test_where_all_are_damaged_nothing_is_begun_anew(tiny_config, tmp_path):
    train(tiny_config, tmp_path)
    for path in (tmp_path / 'checkpoints').rglob('_CHECKPOINT_METADATA'):
        path.unlink()
    before = sorted((tmp_path / 'checkpoints').iterdir())
    with pytest.raises(UserError, match='every checkpoint in .* is damaged'):
        train(tiny_config, tmp_path)
    assert sorted((tmp_path / 'checkpoints').iterdir()) == before
