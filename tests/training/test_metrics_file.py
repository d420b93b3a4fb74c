import json
import sys

import pytest

from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training.loop import train
from vaebm_jax.training.metrics_file import MetricsFile


def test_metrics_file_is_cut_back_and_survives_half_a_line(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_text('{"step": 2, "a": 1}\n{"step": 4, "a": 2}\n{"step": 6, "a"')
    MetricsFile(path, start=2).write(4, {'a': float('nan')})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {'step': 2, 'a': 1},
        {'step': 4, 'a': None},
    ]


def test_of_the_rollbacks_those_before_a_checkpoint_stay(tmp_path):
    """The first led back to step 4, the second to 2; a checkpoint after both knows of both."""
    path = tmp_path / 'metrics.jsonl'
    lines = ['{"step": 2}', '{"step": 4, "event": "rollback", "rollbacks": 1}']
    lines += ['{"step": 2, "event": "rollback", "rollbacks": 2}', '{"step": 3}', '{"step": 4}']
    for rollbacks, kept in ((2, [0, 1, 2, 3]), (1, [0, 1, 3]), (0, [0, 3])):
        path.write_text('\n'.join(lines) + '\n')
        MetricsFile(path, start=3, rollbacks=rollbacks)
        assert path.read_text().splitlines() == [lines[index] for index in kept]


def test_without_tensorboard_nothing_is_left(tiny_config, tmp_path, monkeypatch):
    """That would refuse the next start, with other settings."""
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)  # As if it were not installed.
    with pytest.raises(UserError, match="^--tensorboard needs pip install 'vaebm_jax"):
        train(tiny_config, tmp_path / 'run', tensorboard=True)
    assert not (tmp_path / 'run').exists()
