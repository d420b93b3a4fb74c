import json

import pytest

from vaebm_jax import log
from vaebm_jax.metrics_file import MetricsFile
from vaebm_jax.vaebm import collapse_warning


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


@pytest.mark.parametrize(
    'step, rate, spread, warns',
    [(500, 0.05, 0.9, True), (500, 9.0, 0.02, True), (500, 9.0, 0.9, False), (10, 0.0, 0.0, False)],
)
def test_collapse_is_told_in_words(step, rate, spread, warns):
    assert bool(collapse_warning(step, {'rate': rate, 'spread': spread})) == warns


def test_what_was_found_cached_is_not_counted_in_the_time_that_is_left(capsys, monkeypatch):
    """50 of 100 are there already; 10 more in 2 s are 5 a second, and 8 s for the other 40."""
    clock = iter([0.0, 0.0, 2.0, 10.0])
    monkeypatch.setattr(log.time, 'perf_counter', lambda: next(clock))
    with log.counted('features', 'images', 100, seconds=0.0) as advance:
        advance(50, cached=True)
        advance(10)
        advance(50)  # More than there are left.
    assert capsys.readouterr().err == 'features: 60/100 images, 5 a second, 8 s left\n'
