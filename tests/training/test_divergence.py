import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import load
from vaebm_jax.methods import METHODS
from vaebm_jax.methods.vaebm import train_step
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training import loop
from vaebm_jax.training.checkpoints import checkpoint_manager, rollbacks_at, save
from vaebm_jax.training.divergence import Diverged, slowed, sound_values
from vaebm_jax.training.loop import run_keys, train


def rows(workdir):
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    return [{**json.loads(line), 'images_per_second': None} for line in lines]


def poison(monkeypatch, config, step, place, healthy_after=1):
    """Puts NaN into one place of a step, for as long as the run has not gone back often enough."""
    keys = jnp.stack(
        [
            jax.random.key_data(jax.random.split(run_keys(config, count)[-1], 3)[1])
            for count in range(healthy_after)
        ]
    )

    def poisoned(key, states, batch, config, axis_name=None):
        is_sick = jnp.any(jnp.all(jax.random.key_data(key)[jnp.newaxis] == keys, axis=1))
        is_bad = is_sick & (states.step == step)
        spoil = lambda tree: jax.tree.map(lambda leaf: jnp.where(is_bad, jnp.nan, leaf), tree)
        if place == 'data':
            batch = batch.replace(image=spoil(batch.image))
        else:
            state = getattr(states, place)
            states = states.replace(**{place: state.replace(params=spoil(state.params))})
        return train_step(key, states, batch, config, axis_name)

    monkeypatch.setitem(METHODS, 'vaebm', METHODS['vaebm']._replace(step=poisoned))


@pytest.mark.parametrize('place', ['data', 'energy', 'decoder'])
def test_a_nan_costs_the_steps_since_the_last_checkpoint(
    tiny_config, tmp_path, monkeypatch, capsys, place
):
    tiny_config.log_every = 1
    poison(monkeypatch, tiny_config, 4, place)
    states = train(tiny_config, tmp_path)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(states))
    lines = rows(tmp_path)
    (event,) = (row for row in lines if 'event' in row)
    assert {name: event[name] for name in ('step', 'event', 'rollbacks', 'diverged_at')} == {
        'step': 4,
        'event': 'rollback',
        'rollbacks': 1,
        'diverged_at': 5,
    }
    assert event['energy_data'] is None and event['distortion'] is not None or place != 'data'
    steps = [row['step'] for row in lines if 'event' not in row]
    assert steps == [1, 2, 3, 4, 5, 6]
    said = capsys.readouterr().err
    assert 'diverged at step 5: ' in said and 'back to step 4 with other noise' in said
    assert 'roll-back 1 of 3' in said


@pytest.mark.parametrize('step, num_rollbacks', [(2, 1), (4, 2)])
def test_what_goes_on_after_a_rollback_is_a_law(
    tiny_config, tmp_path, monkeypatch, step, num_rollbacks
):
    """A run killed after roll-backs, at its next checkpoint or later, ends as if it was not.

    The second of two leads from step 4 to step 2, and deletes the checkpoint of step 4.
    """
    config = dataclasses.replace(tiny_config, log_every=1)
    poison(monkeypatch, config, step, 'energy', healthy_after=num_rollbacks)
    whole = train(config, tmp_path / 'whole')

    class Killed(Exception):
        pass

    for stop in (4, 6):  # In the place of the first save after the roll-backs, and of the second.

        def kill(manager, states, rollbacks, files, stop=stop):
            if (int(states.step), rollbacks) == (stop, num_rollbacks):
                raise Killed
            save(manager, states, rollbacks, files)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(loop.checkpoints, 'save', kill)
            train(config, tmp_path / 'parts')
    parts = train(config, tmp_path / 'parts')
    for ours, theirs in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert rows(tmp_path / 'parts') == rows(tmp_path / 'whole')
    events = [row['step'] for row in rows(tmp_path / 'whole') if 'event' in row]
    assert events == [4, 2][-num_rollbacks:]


def test_a_checkpoint_that_diverges_whatever_the_noise_is_gone_back_past(
    tiny_config, tmp_path, capsys
):
    """Its parameters are too large for any step; those of the one before are not."""
    config = dataclasses.replace(tiny_config, log_every=1)
    train(dataclasses.replace(config, num_steps=4), tmp_path)
    states, _ = load(tmp_path)
    huge = jax.tree.map(lambda leaf: leaf + 1e25, states.energy.params)
    with checkpoint_manager(tmp_path) as manager:
        manager.delete(4)
        save(manager, states.replace(energy=states.energy.replace(params=huge)))
    capsys.readouterr()
    states = train(config, tmp_path)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(states))
    assert [row['step'] for row in rows(tmp_path)] == [1, 2, 4, 2, 3, 4, 5, 6]
    events = [row for row in rows(tmp_path) if 'event' in row]
    assert [(row['step'], row['rollbacks'], row['diverged_at']) for row in events] == [
        (4, 1, 5),
        (2, 2, 5),
    ]
    first, second = re.findall('^diverged .*', capsys.readouterr().err, re.MULTILINE)
    assert '; back to step 4 with other noise' in first
    assert '; again from step 4, so its checkpoint is deleted; back to step 2 with' in second
    with checkpoint_manager(tmp_path) as manager:
        assert [rollbacks_at(manager, step) for step in (2, 4, 6)] == [0, 2, 2]


def test_from_the_first_checkpoint_it_goes_back_to_the_start(tiny_config, tmp_path, monkeypatch):
    poison(monkeypatch, tiny_config, 2, 'energy', healthy_after=2)
    states = train(tiny_config, tmp_path)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(states))
    assert [row['step'] for row in rows(tmp_path)] == [2, 0, 2, 4, 6]


def test_a_run_that_goes_on_diverging_stops_with_numbers_and_advice(
    tiny_config, tmp_path, monkeypatch
):
    poison(monkeypatch, tiny_config, 4, 'energy', healthy_after=9)
    tiny_config.divergence.max_rollbacks = 2
    with pytest.raises(
        UserError,
        match=r'diverged after 2 roll-backs \(divergence.max_rollbacks\): at step [56] energy_data '
        r'is nan, .*A lower energy\.learning_rate',
    ):
        train(tiny_config, tmp_path)
    assert int(load(tmp_path)[0].step) == 4
    events = [row for row in rows(tmp_path) if 'event' in row]
    assert [(row['step'], row['rollbacks']) for row in events] == [(4, 1), (2, 2)]


def test_before_the_first_checkpoint_it_begins_anew(tiny_config, tmp_path):
    tiny_config.energy.learning_rate = 1e30
    tiny_config.divergence.max_rollbacks = 1
    with pytest.raises(UserError, match='diverged after 1 roll-backs'):
        train(tiny_config, tmp_path)
    assert not list((tmp_path / 'checkpoints').iterdir())
    (event,) = rows(tmp_path)
    assert event['step'] == 0 and event['rollbacks'] == 1


def test_explosions_are_seen_before_they_are_infinite(tiny_config):
    values = {'energy_data': jnp.float32(-2e10), 'energy_samples': jnp.float32(1.0)}
    with pytest.raises(Diverged, match='step 7: energy_data is -2e[+]10'):
        sound_values(7, values, tiny_config)
    tiny_config.divergence.max_energy = 0.0
    assert sound_values(7, values, tiny_config)['energy_samples'] == 1.0
    with pytest.raises(Diverged, match='grad_norm/encoder is nan'):
        sound_values(7, values | {'grad_norm/encoder': jnp.nan}, tiny_config)


def test_rates_are_halved_each_time_and_nothing_else_changes(tiny_config):
    later = slowed(tiny_config, 2)
    assert later.energy.learning_rate == tiny_config.energy.learning_rate / 4
    assert later.vae.learning_rate == tiny_config.vae.learning_rate / 4
    later.energy = dataclasses.replace(tiny_config.energy)
    later.vae = dataclasses.replace(tiny_config.vae)
    assert later == tiny_config and slowed(tiny_config, 0) == tiny_config
