import dataclasses
import json
import re
import shutil

import chex
import jax
import numpy as np
import pytest
from helpers.runs import assert_same_states, train
from PIL import Image

from vaebm_jax.config import ConditionConfig, Config, DataConfig, ScheduleConfig, to_json
from vaebm_jax.methods import METHODS
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training import loop
from vaebm_jax.training.checkpoints import load
from vaebm_jax.training.loop import calls
from vaebm_jax.training.metrics_file import MetricsFile


def all_rows(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def rows(workdir):
    clocks = ('images_per_second',)
    return [
        {name: value for name, value in row.items() if name not in clocks}
        for row in all_rows(workdir)
    ]


@pytest.mark.parametrize(
    ('steps_per_call', 'generator'), [(1, 'threefry2x32'), (4, 'threefry2x32'), (1, 'rbg')]
)
def test_a_run_gone_on_with_is_the_run_left_alone(tiny_config, tmp_path, steps_per_call, generator):
    tiny_config.steps_per_call = steps_per_call
    tiny_config.generator = generator
    tiny_config.schedule.name = 'constant'
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    uninterrupted = train(tiny_config, whole)
    for num_steps in (3, 5, 6):
        states = train(dataclasses.replace(tiny_config, num_steps=num_steps), parts)
    assert_same_states(states, uninterrupted)
    by_step = {row['step']: row for row in rows(parts)}
    assert rows(whole) == [by_step[step] for step in (2, 4, 6)]


def test_a_rate_that_falls_over_the_run_is_part_of_it(tiny_config, tmp_path, monkeypatch):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    uninterrupted = train(tiny_config, whole)

    class Interrupted(Exception):
        pass

    class Interrupting(MetricsFile):
        def write(self, step, metrics):
            super().write(step, metrics)
            if step == 4:
                raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, 'MetricsFile', Interrupting)
        train(tiny_config, parts)
    # The row of step 4 was written, its checkpoint was not.
    assert [row['step'] for row in rows(parts)] == [2, 4]
    assert_same_states(train(tiny_config, parts), uninterrupted)
    assert rows(parts) == rows(whole)


def test_what_a_run_leaves(tiny_config, tmp_path, capsys):
    tiny_config.sample_every = 3
    tiny_config.keep_checkpoints = 2
    states = train(tiny_config, tmp_path)
    assert (tmp_path / 'config.json').read_text() == to_json(tiny_config)
    assert sorted(path.name for path in (tmp_path / 'samples').iterdir()) == [
        'step_00000003.png',
        'step_00000006.png',
    ]
    with Image.open(tmp_path / 'samples' / 'step_00000006.png') as picture:
        picture.load()
        assert picture.width > 2 * 8 * 56
    assert {path.name for path in (tmp_path / 'checkpoints').iterdir()} == {'4', '6'}
    assert [row['step'] for row in rows(tmp_path)] == [2, 4, 6]
    assert all(np.isfinite(value) for row in rows(tmp_path) for value in row.values())

    loaded, config = load(tmp_path)
    assert config == tiny_config
    assert_same_states(loaded, states)
    assert int(load(tmp_path, step=4)[0].step) == 4
    output = capsys.readouterr().err
    assert output.startswith(f'jax {jax.__version__}, 1 x cpu')
    assert 'compiled in' in output and 'steps/s' in output and 's left' in output


def test_no_speed_is_told_before_a_step_was_timed(tiny_config, tmp_path, capsys):
    """The first call, which compiles, does not count: six steps in calls of two."""
    train(dataclasses.replace(tiny_config, steps_per_call=2), tmp_path)
    first, *others = re.findall('^step .*', capsys.readouterr().err, re.MULTILINE)
    assert first.startswith('step 2/6: energy of data') and 'steps/s' not in first
    assert len(others) == 2 and all('steps/s' in line for line in others)
    assert ['images_per_second' in row for row in all_rows(tmp_path)] == [False, True, True]


def test_a_compilation_after_a_warm_start_is_no_training_time(tiny_config, tmp_path, monkeypatch):
    """By a clock on which a compilation takes 1000 s and every other call 1 s."""
    clock, compiled = [0.0], set()
    monkeypatch.setattr(loop.log.time, 'perf_counter', lambda: clock[0])
    compile_step = loop.compile_step

    def compile_by_the_clock(step, *args):
        call = compile_step(step, *args)

        def timed(*args):
            clock[0] += 1 if step in compiled else 1000
            compiled.add(step)
            return call(*args)

        return timed

    monkeypatch.setattr(loop, 'compile_step', compile_by_the_clock)
    config = dataclasses.replace(tiny_config, num_steps=8, warmup_steps=3, log_every=1)
    train(config, tmp_path)
    speeds = [row.get('images_per_second') for row in all_rows(tmp_path)]
    assert speeds == [None, 8.0, 8.0, None, 8.0, 8.0, 8.0, 8.0]
    compiled.clear()
    config = dataclasses.replace(config, log_every=2)
    train(config, tmp_path / 'other')
    assert [row.get('images_per_second') for row in all_rows(tmp_path / 'other')] == [8.0] * 4


def test_a_run_without_a_step_for_the_energy_warns(tiny_config, tmp_path, capsys):
    tiny_config.num_steps, tiny_config.warmup_steps = 2, 2
    train(tiny_config, tmp_path)
    warning = 'the energy is not trained: all 2 steps are the warm start (warmup_steps 2)'
    assert warning in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert rows and not any('energy_data' in row for row in rows)


def test_a_finished_run_says_so(tiny_config, tmp_path, capsys):
    train(tiny_config, tmp_path)
    before = (tmp_path / 'metrics.jsonl').read_bytes()
    capsys.readouterr()
    train(tiny_config, tmp_path)
    assert f'finished: {tmp_path} is at step 6 of 6\n' in capsys.readouterr().err
    train(dataclasses.replace(tiny_config, num_steps=4), tmp_path)
    said = f'finished: {tmp_path} has done 6 steps, more than num_steps=4: nothing was trained\n'
    assert said in capsys.readouterr().err
    assert (tmp_path / 'metrics.jsonl').read_bytes() == before


def test_another_run_in_the_workdir_is_refused_by_field(tiny_config, tmp_path):
    train(tiny_config, tmp_path)
    other = dataclasses.replace(tiny_config, seed=1, latent_dim=5, num_steps=8, log_every=1)
    with pytest.raises(UserError, match='seed was 0, now 1; latent_dim was 4, now 5$'):
        train(other, tmp_path)
    assert (tmp_path / 'config.json').read_text() == to_json(tiny_config)


def test_init_from_takes_parameters_and_averages_alone(tiny_config, tmp_path, monkeypatch):
    trained = train(tiny_config, tmp_path / 'first')
    second = dataclasses.replace(tiny_config, init_from=str(tmp_path / 'first'))
    started = []
    original = loop.place_states
    monkeypatch.setattr(
        loop,
        'place_states',
        lambda states, devices: started.append(jax.device_get(states)) or original(states, devices),
    )
    train(second, tmp_path / 'second')
    for name in ('energy', 'encoder', 'decoder'):
        ours, theirs = getattr(started[0], name), getattr(trained, name)
        assert_same_states((ours.params, ours.ema_params), (theirs.params, theirs.ema_params))
        assert int(ours.step) == 0
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(ours.opt_state[0].mu))

    wider = dataclasses.replace(second.network, energy=(('dense', 17),))
    with pytest.raises(UserError, match='init_from: the energy in .* has other layers'):
        train(dataclasses.replace(second, network=wider), tmp_path / 'third')


@pytest.mark.parametrize('method', ['vaebm', 'vae'])
def test_init_from_keeps_the_averages_of_models_that_were_trained(tiny_config, tmp_path, method):
    """A VAE's run has no trained energy; what is known of it outlives an interruption."""
    first = train(dataclasses.replace(tiny_config, method=method), tmp_path / 'first')
    config = dataclasses.replace(
        tiny_config, num_steps=1, checkpoint_every=1, init_from=str(tmp_path / 'first')
    )
    second = train(config, tmp_path / 'second')
    restored = load(tmp_path / 'second')[0]
    assert first.models.keys() == METHODS[method].roles.keys()
    for name in first.models:
        states = [getattr(states, name) for states in (first, second, restored)]
        average = lambda old, new: 0.99 * old + 0.01 * new
        expected = jax.tree.map(average, states[0].ema_params, states[1].params)
        chex.assert_trees_all_close(states[1].ema_params, expected, rtol=1e-5, atol=1e-7)
        assert states[1].was_trained and states[2].was_trained
    assert second.energy.was_trained == (method == 'vaebm')


@pytest.mark.parametrize('num_steps', [1, 2, 6])
def test_profile_names_its_folder_once_and_writes_a_trace_there(
    tiny_config, tmp_path, capsys, num_steps
):
    """Of the only call, of the only one that does not compile, of some of six."""
    config = dataclasses.replace(tiny_config, num_steps=num_steps)
    train(config, tmp_path, profile=True)
    assert capsys.readouterr().err.count(f'profile: {tmp_path}/profile (TensorBoard') == 1
    assert len(list((tmp_path / 'profile').rglob('*.xplane.pb'))) == 1
    train(config, tmp_path, profile=True)
    said = capsys.readouterr().err
    assert 'and no step is left to profile' in said and 'profile: ' not in said
    assert len(list((tmp_path / 'profile').rglob('*.xplane.pb'))) == 1


def test_another_end_of_the_run_tells_how_the_rates_jump(tiny_config, tmp_path, capsys):
    """A linear schedule, after one step of warm start: level to its middle, then to 5 % at its end.

    At step 6 the VAE had come to that; the energy, an update behind, to 2/3 of the way. Of 12
    steps both would still be at the level.
    """
    config = dataclasses.replace(tiny_config, warmup_steps=1)
    train(config, tmp_path)
    assert 'learning rate' not in capsys.readouterr().err
    train(dataclasses.replace(config, num_steps=12, log_every=12), tmp_path)
    said = capsys.readouterr().err
    line = (
        "warning: at step 6 the energy's learning rate rises from 0.000367 to 0.001 and the VAE's "
        'learning rate rises from 5e-06 to 0.0001: num_steps was 6 and is now 12'
    )
    assert said.count('rises from') == 2 and said.index(line) < said.index('compiling')
    states = train(dataclasses.replace(config, num_steps=13), tmp_path)
    said = capsys.readouterr().err
    assert said.count('learning rate rises from') == 2 and int(states.step) == 13


ENERGY = "the energy's learning rate falls from 0.001 to 0.00043"
VAE = "the VAE's learning rate falls from 0.0001 to 4.3e-05"


@pytest.mark.parametrize(
    'schedule, method, said',
    [
        ({}, 'vaebm', f'{ENERGY} and {VAE}: num_steps was 20 and is now 10'),
        ({}, 'vae', f'{VAE}: num_steps'),
        ({'energy_steps': 40}, 'vaebm', f'{VAE}: num_steps'),
        ({'name': 'constant'}, 'vaebm', ''),
        ({'name': 'exponential', 'decay_steps': 3}, 'vaebm', ''),
    ],
)
def test_only_the_rates_that_depend_on_num_steps_are_told(schedule, method, said, capsys):
    """At step 8 of 20 a linear schedule is level, of 10 it has gone 3/5 of its way to 5 %."""
    before = Config(num_steps=20, method=method, schedule=ScheduleConfig(**schedule))
    loop.warn_of_other_rates(8, before, dataclasses.replace(before, num_steps=10))
    line = capsys.readouterr().err
    assert line.startswith(f'warning: at step 8 {said}') if said else line == ''


def test_a_batch_larger_than_the_data_is_refused(tiny_config, tmp_path):
    tiny_config.batch_size = 1501
    with pytest.raises(UserError, match='batch_size must be at most the 1500 images of digits'):
        train(tiny_config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_calls_end_where_something_is_due(tiny_config):
    config = dataclasses.replace(
        tiny_config, num_steps=23, steps_per_call=4, log_every=10, sample_every=0
    )
    config.checkpoint_every = 7
    ends = [last for _, last in calls(config, 0)]
    assert ends == [4, 7, 10, 14, 18, 20, 21, 23]
    assert list(calls(config, 18)) == [(18, 20), (20, 21), (21, 23)]
    config.warmup_steps = 9
    assert [last for _, last in calls(config, 0)] == [4, 7, 9, 10, 14, 18, 20, 21, 23]


def test_too_many_chains_for_the_memory_are_named_with_what_they_need(tiny_config, tmp_path):
    tiny_config.num_chains = 10**9
    # A billion guesses of 8x8 pixels are 256 GB, and there is more than those.
    with pytest.raises(
        UserError,
        match=r'out of memory: a step of batch_size 8 and num_chains 1000000000 over 1 device\(s\) '
        r'needs [\d,]+\.\d\d GB',
    ) as caught:
        train(tiny_config, tmp_path)
    needed = re.search(r'needs (.*) GB', str(caught.value))[1]
    assert float(needed.replace(',', '')) > 256


def folder_config(config, folder, **settings):
    """A conditional run on a folder with eight training images."""
    for index in range(8):
        image = np.random.default_rng(index).integers(0, 256, (24, 32), np.uint8)
        (folder / 'train').mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / 'train' / f'{index}.png')
    return dataclasses.replace(
        config,
        sample_every=2,
        condition=ConditionConfig('center_hole'),
        data=DataConfig(name='folder', dir=str(folder), **settings),
    )


@pytest.mark.parametrize('has_test, val_share', [(False, 0.0), (True, 0.2)])
def test_a_folder_without_held_out_images_trains(
    tiny_config, tmp_path, capsys, has_test, val_share
):
    """Told before the first step; where there is a test folder its images are shown."""
    config = folder_config(tiny_config, tmp_path / 'set', val_share=val_share)
    if has_test:
        shutil.copytree(tmp_path / 'set' / 'train', tmp_path / 'set' / 'test')
    train(config, tmp_path / 'run')
    lines = capsys.readouterr().err.splitlines()
    told = [index for index, line in enumerate(lines) if 'no image is held out' in line]
    assert len(told) == (not has_test)
    assert not told or told[0] < lines.index('compiling the training step ...')
    assert len(list((tmp_path / 'run').glob('samples/*.png'))) == (3 if has_test else 0)
    assert int(load(tmp_path / 'run')[0].step) == 6


@pytest.mark.parametrize('broken', ['preview', 'MetricsFile.write'])
def test_no_row_or_picture_costs_a_checkpoint(tiny_config, tmp_path, monkeypatch, broken):
    """Whatever fails at step 3, where none is due, the state of step 3 is saved."""
    config = dataclasses.replace(tiny_config, log_every=3, sample_every=3, checkpoint_every=0)

    def fail(*args):
        raise RuntimeError('broken')

    preview = (lambda config: fail) if broken == 'preview' else None
    with monkeypatch.context() as patch:
        if broken == 'MetricsFile.write':
            patch.setattr(MetricsFile, 'write', fail)
        with pytest.raises(RuntimeError, match='broken'):
            train(config, tmp_path / 'run', preview=preview)
    assert int(load(tmp_path / 'run')[0].step) == 3
    states = train(config, tmp_path / 'run')
    assert_same_states(states, train(config, tmp_path / 'other'))
