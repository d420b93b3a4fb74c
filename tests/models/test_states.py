"""A run's models by name, its clock and its memory: as a tree, and on disk."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from vaebm_jax import States, TrainState, create_states, load
from vaebm_jax.training.checkpoints import checkpoint_manager, restore, save
from vaebm_jax.training.loop import train

KEY = jax.random.key(0)
MODELS = {'vaebm': ('energy', 'encoder', 'decoder'), 'vae': ('encoder', 'decoder')}


def model(value):
    return TrainState.create(apply_fn=None, params={'w': jnp.full(3, value)}, tx=optax.adam(1.0))


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_the_usual_three_and_any_others():
    one, two, three = map(model, (1.0, 2.0, 3.0))
    states = States(one, two, decoder=three)
    assert (states.energy, states.encoder, states.decoder) == (one, two, three)
    assert states.models == {'energy': one, 'encoder': two, 'decoder': three}
    assert states.memory is None and states.step.dtype == jnp.int32 and int(states.step) == 0
    assert int(States(one.replace(step=jnp.array(7)), two, three).step) == 7

    states = States(critic=one, generator=two, memory=jnp.zeros(2, jnp.uint8))
    assert list(states.models) == ['critic', 'generator'] and int(states.step) == 0
    later = states.advance(critic=three, memory=jnp.ones(2, jnp.uint8))
    assert later.models == {'critic': three, 'generator': two} and int(later.step) == 1
    assert later.memory.tolist() == [1, 1]
    with pytest.raises(TypeError, match="no 'citric' in states of \\['critic', 'generator']"):
        states.replace(citric=one)
    mapped = jax.tree.map(lambda leaf: None, states)
    assert mapped.step is None and mapped.models['critic'].params == {'w': None}


def test_states_can_be_donated():
    """No two of their arrays are one: a step of the energy's is not the clock."""
    states = States(*map(model, (1.0, 2.0, 3.0)))
    states = states.replace(energy=states.energy.replace(step=jnp.array(4, jnp.int32)))
    states = States(states.energy, states.encoder, states.decoder)
    later = jax.jit(lambda states: states.advance(), donate_argnums=0)(states)
    assert int(later.step) == 5 and int(later.energy.step) == 4


def test_a_checkpoint_holds_models_clock_and_memory(tiny_config, tmp_path):
    states = create_states(KEY, tiny_config).replace(step=jnp.array(3, jnp.int32))
    with checkpoint_manager(tmp_path) as manager:
        save(manager, states)
        assert sorted(manager.item_metadata(3)) == ['decoder', 'encoder', 'energy', 'step']
        restored = restore(manager, 3, tiny_config)
        assert int(restored.step) == 3 and int(restored.energy.step) == 0
        assert_same(restored, states)
        save(manager, states.advance(memory={'images': jnp.zeros((5, 2), jnp.uint8)}))
        assert 'memory' in manager.item_metadata(4)


@pytest.mark.parametrize('method', ['vaebm', 'vae'])
def test_a_run_from_before_the_clock_goes_on(tiny_config, tmp_path, method):
    """Then every run had an energy, and every model's step was the clock.

    Adam alone knew that the energy stood still.
    """
    tiny_config.schedule.name = 'constant'
    config = dataclasses.replace(tiny_config, warmup_steps=3, method=method)
    whole = train(config, tmp_path / 'whole')
    steps = {'vaebm': [6, 3, 6, 6], 'vae': [6, 6, 6]}[method]
    assert [int(clock.step) for clock in (whole, *map(whole.models.get, MODELS[method]))] == steps
    train(dataclasses.replace(config, num_steps=4), tmp_path / 'old')
    states, _ = load(tmp_path / 'old')
    stored = {
        name: {
            'step': states.step,
            'params': model.params,
            'opt_state': model.opt_state,
            'ema_params': model.ema_params,
        }
        for name, model in (create_states(KEY, tiny_config).models | states.models).items()
    }
    with checkpoint_manager(tmp_path / 'old') as manager:
        for step in (2, 4):
            manager.delete(step)
        manager.save(4, args=ocp.args.StandardSave(stored))
    assert_same(load(tmp_path / 'old')[0], states)
    assert_same(train(config, tmp_path / 'old'), whole)
