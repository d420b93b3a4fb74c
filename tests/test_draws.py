"""Many samples: the same numbers in any parts, and on from the last one."""

import dataclasses

import jax
import numpy as np
import pytest

from vaebm_jax import create_states, draws, generate
from vaebm_jax.draws import Draws
from vaebm_jax.sampling import generate_keys, revise

SAMPLERS = ('ancestral', 'refined', 'refined_2x')


@pytest.fixture
def states(tiny_config, monkeypatch):
    monkeypatch.setattr(draws, '_PART', 8)
    return jax.jit(create_states, static_argnames='config')(jax.random.key(0), tiny_config)


def joined(parts):
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_they_are_those_of_generate(tiny_config, states, tmp_path):
    """20 samples in parts of 8; twice the steps go on from the refined."""
    samples = joined(Draws(tmp_path, states, tiny_config, 20, SAMPLERS))
    key = jax.random.key(tiny_config.seed)
    ancestral, refined = generate(key, states, tiny_config, 20, ema=False)
    np.testing.assert_allclose(samples['ancestral'], ancestral, atol=1e-6)
    np.testing.assert_allclose(samples['refined'], refined, atol=1e-5)
    twice = revise(generate_keys(key)[1], states, tiny_config, ancestral, 6)
    np.testing.assert_allclose(samples['refined_2x'], twice, atol=1e-4)


def test_an_interrupted_job_draws_only_what_is_missing(tiny_config, states, tmp_path, monkeypatch):
    whole = joined(Draws(tmp_path / 'whole', states, tiny_config, 20, SAMPLERS))
    interrupted = Draws(tmp_path / 'run', states, tiny_config, 20, SAMPLERS)
    next(iter(interrupted))
    done = list(interrupted.folder.iterdir())
    assert len(done) == 1
    (interrupted.folder / '00000008.npz').write_bytes(done[0].read_bytes()[:100])  # Half a file.
    drawn = []
    original = Draws._draw
    monkeypatch.setattr(
        Draws,
        '_draw',
        lambda self, first: drawn.append(first) or original(self, first),
    )
    again = Draws(tmp_path / 'run', states, tiny_config, 20, SAMPLERS)
    for name, images in joined(again).items():
        np.testing.assert_array_equal(images, whole[name])
    assert drawn == [8, 16]
    again.discard()
    assert not (tmp_path / 'run' / 'samples' / 'parts').exists()


def test_other_parameters_settings_and_samplers_share_no_parts(tiny_config, states, tmp_path):
    other = states.replace(
        energy=states.energy.replace(params=jax.tree.map(lambda p: p + 1, states.energy.params))
    )
    longer = dataclasses.replace(
        tiny_config, langevin=dataclasses.replace(tiny_config.langevin, num_steps=5)
    )
    folders = {
        Draws(tmp_path, *arguments).folder
        for arguments in (
            (states, tiny_config, 8, SAMPLERS),
            (other, tiny_config, 8, SAMPLERS),
            (states, longer, 8, SAMPLERS),
            (states, tiny_config, 8, SAMPLERS[:2]),
        )
    }
    assert len(folders) == 4
