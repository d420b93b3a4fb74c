import dataclasses
import json
import resource
import shutil

import jax
import numpy as np
import pytest
from helpers.runs import assert_same_states

from vaebm_jax.config import ConditionConfig, to_json
from vaebm_jax.runtime.atomic_files import write_atomically
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training.checkpoints import (
    checkpoint_manager,
    damage,
    load,
    load_config,
    newest_complete,
)
from vaebm_jax.training.loop import train
from vaebm_jax.training.metrics_file import MetricsFile


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


def test_a_workdir_of_before_the_renaming_is_read_and_goes_on(tiny_config, tmp_path):
    condition = ConditionConfig('random_hole', hole_size=0.4, updates='all')
    config = dataclasses.replace(tiny_config, condition=condition)
    config.schedule.name = 'constant'
    uninterrupted = train(config, tmp_path / 'whole')
    run = tmp_path / 'run'
    train(dataclasses.replace(config, num_steps=4), run)
    stored = json.loads((run / 'config.json').read_text())
    for before, today in ConditionConfig.RENAMED.items():
        stored['condition'][before] = stored['condition'].pop(today)
    (run / 'config.json').write_text(json.dumps(stored))
    assert load(run)[1].condition == condition
    start = dataclasses.replace(config, num_steps=1, init_from=str(run))
    train(start, tmp_path / 'started')
    with pytest.raises(UserError, match='condition.updates was .all., now .hidden.$'):
        other = dataclasses.replace(condition, updates='hidden')
        train(dataclasses.replace(config, condition=other), run)
    assert_same_states(train(config, run), uninterrupted)
    assert load_config(run) == config and '"moves"' not in (run / 'config.json').read_text()


def damages(folder):
    """Every file of a checkpoint truncated, deleted and with one bit changed, each in turn."""
    for path in sorted(folder.rglob('*')):
        if path.is_file() and path.name != 'digests.json':
            whole = path.read_bytes()
            for place in (0, len(whole) // 2, len(whole) - 1):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
                yield path
            path.write_bytes(whole[: len(whole) // 2])
            yield path
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
    assert count >= 60 and damage(folder) == ''
    for content in (b'[', b'[]', bytes(10**8)):
        (folder / 'digests.json').write_bytes(content)
        assert damage(folder) == 'digests.json cannot be read'


def test_a_damaged_checkpoint_is_not_used(tiny_config, tmp_path, capsys):
    """The run goes on from the one before, to the same end; `strict` and `load` refuse."""
    run = tmp_path / 'run'
    train(tiny_config, run)
    alone = jax.tree.leaves(load(run)[0])
    for path in (run / 'checkpoints' / '6').rglob('*'):
        if path.is_file() and path.name != 'digests.json':
            path.write_bytes(path.read_bytes()[1:])
    with pytest.raises(UserError, match=r'checkpoints/6 is damaged: .* of \[2, 4, 6\] with'):
        load(run)
    assert int(load(run, 4)[0].step) == 4
    with pytest.raises(UserError, match='--resume=strict resumes only from the newest checkpoint'):
        train(tiny_config, run, strict=True)
    capsys.readouterr()
    again = train(tiny_config, run)
    errors = capsys.readouterr().err
    assert 'checkpoints/6 is damaged: ' in errors and 'resume: from step 4' in errors
    for ours, theirs in zip(jax.tree.leaves(again), alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(load(run)[0].step) == 6


def test_where_all_are_damaged_nothing_is_begun_anew(tiny_config, tmp_path):
    train(tiny_config, tmp_path)
    for path in (tmp_path / 'checkpoints').rglob('_CHECKPOINT_METADATA'):
        path.unlink()
    before = sorted((tmp_path / 'checkpoints').iterdir())
    with pytest.raises(UserError, match='every checkpoint in .* is damaged'):
        train(tiny_config, tmp_path)
    assert sorted((tmp_path / 'checkpoints').iterdir()) == before


def test_a_checkpoint_without_digests_is_used_only_where_there_is_no_better(tiny_config, tmp_path):
    train(tiny_config, tmp_path)
    with checkpoint_manager(tmp_path) as manager:
        (tmp_path / 'checkpoints/6/digests.json').unlink()
        assert newest_complete(manager) == 4
        assert sorted(manager.all_steps()) == [2, 4]
        for path in (tmp_path / 'checkpoints').glob('*/digests.json'):
            path.unlink()
        with pytest.raises(UserError, match='--resume=strict'):
            newest_complete(manager, strict=True)
        assert newest_complete(manager) == 4
    assert int(load(tmp_path)[0].step) == 4


def test_what_a_killed_run_left_half_written_is_cleared_away(tiny_config, tmp_path):
    train(tiny_config, tmp_path)
    half = tmp_path / 'checkpoints' / '8.orbax-checkpoint-tmp'
    half.mkdir()
    load(tmp_path)
    assert half.is_dir(), 'to one who reads, it may be a run at work'
    train(dataclasses.replace(tiny_config, num_steps=8), tmp_path)
    assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['4', '6', '8']


def test_a_full_disk_costs_one_line_and_no_checkpoint(tiny_config, tmp_path, monkeypatch):
    """Once as the free space tells it beforehand, once as the file system does, by a limit."""
    train(tiny_config, tmp_path)
    longer = dataclasses.replace(tiny_config, num_steps=9)
    with monkeypatch.context() as patch:
        full = shutil.disk_usage(tmp_path)._replace(free=10_000)
        patch.setattr('vaebm_jax.training.checkpoints.shutil.disk_usage', lambda path: full)
        with pytest.raises(
            UserError, match=r'checkpoints/8 cannot be written \(a checkpoint needs'
        ):
            train(longer, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(UserError, match=r'checkpoints/8 cannot be written \(File too large\)'):
            train(longer, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert int(load(tmp_path)[0].step) == 6
    assert int(train(longer, tmp_path).step) == 9


def test_a_workdir_that_vanishes_is_named(tiny_config, tmp_path, monkeypatch):
    write = MetricsFile.write

    def vanish(self, step, metrics):
        write(self, step, metrics)
        if step == 4:
            (tmp_path / 'run').rename(tmp_path / 'elsewhere')

    monkeypatch.setattr(MetricsFile, 'write', vanish)
    with pytest.raises(UserError, match=r'run/checkpoints/4 cannot be written \(No such file'):
        train(tiny_config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
    assert int(load(tmp_path / 'elsewhere')[0].step) == 2
