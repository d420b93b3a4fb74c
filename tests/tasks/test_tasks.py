"""What a run is of is looked up once: its previews, its modes, and the flags that they take."""

import dataclasses
import inspect

import numpy as np
import pytest
from helpers.mistakes import OTHER_RUNS

from vaebm_jax import main  # noqa: F401  (main defines the flags.)
from vaebm_jax.cli import flags
from vaebm_jax.config import Config
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import TASKS, task_of
from vaebm_jax.training.loop import train

RUNS = {'images': Config(), 'recovery': OTHER_RUNS['gray'], 'points': OTHER_RUNS['points']}


@pytest.mark.parametrize('name', TASKS)
def test_the_task_of_a_run(name):
    assert task_of(RUNS[name]) is TASKS[name]
    assert task_of(dataclasses.replace(RUNS[name], method='vae')) is TASKS[name]


@pytest.mark.parametrize('mode', ['sample', 'evaluate'])
@pytest.mark.parametrize('name', TASKS)
def test_the_flags_that_are_for_a_task_are_what_its_modes_take(name, mode):
    """And no others: whatever else they take is no flag."""
    takes = set(inspect.signature(getattr(TASKS[name], mode)).parameters)
    told = {flag.name for flag in flags.options_of(mode, RUNS[name])}
    assert takes - told <= {'config', 'workdir', 'cache'}
    assert told <= takes


@pytest.mark.parametrize('mode, own', [('geometry', 'points'), ('recover', 'recovery')])
def test_a_mode_of_one_task_alone_is_refused_elsewhere(mode, own):
    words = {
        'geometry': 'on points of the plane (data.name one of eight_gaussians, ring, two_moons, '
        'checkerboard), got ',
        'recover': 'with a condition.kind, got ',
    }[mode]
    for name, config in RUNS.items():
        if name == own:
            flags.refuse_other_runs(mode, config)
            continue
        value = config.data.name if mode == 'geometry' else config.condition.kind
        with pytest.raises(UserError) as error:
            flags.refuse_other_runs(mode, config)
        assert str(error.value) == f'--mode={mode} needs a run {words}{value}'


def test_training_is_handed_what_draws_its_pictures(tiny_config, tmp_path, capsys):
    config = dataclasses.replace(tiny_config, sample_every=2)
    drawn, asked = [], []

    def preview(config):
        asked.append(config)
        return lambda path, keys, states: drawn.append((path, keys, states))

    states = train(config, tmp_path, preview=preview)
    names = [path.name for path, _, _ in drawn]
    assert names == [f'step_{step:08d}.png' for step in (2, 4, 6)] and asked == [config]
    assert not (tmp_path / 'samples').exists()
    train(config, tmp_path / 'without')
    assert not (tmp_path / 'without' / 'samples').exists()
    assert capsys.readouterr().err.splitlines()[-1] == 'finished: step 6 of 6'
    np.testing.assert_array_equal(
        drawn[-1][2].decoder.params['Dense_0']['kernel'],
        states.decoder.ema_params['Dense_0']['kernel'],
    )
