"""Many samples: the same numbers in any parts, and on from the last one."""

import dataclasses

import jax
import numpy as np
import pytest

from vaebm_jax import create_states, generate
from vaebm_jax.evaluation import sample_cache
from vaebm_jax.evaluation.sample_cache import Draws, fingerprint
from vaebm_jax.methods.generate import generate_keys, refine

SAMPLERS = ('ancestral', 'refined', 'refined_2x')


@pytest.fixture
def states(tiny_config, monkeypatch):
    monkeypatch.setattr(sample_cache, '_PART', 8)
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
    twice = refine(generate_keys(key)[1], states, tiny_config, ancestral, 6)
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


def with_params(states, name, change):
    state = getattr(states, name)
    return states.replace(**{name: state.replace(params=jax.tree.map(change, state.params))})


def test_other_parameters_settings_and_stages_share_no_parts(tiny_config, states, tmp_path):
    others = [
        with_params(states, name, change)
        for name in ('energy', 'encoder', 'decoder')
        for change in (lambda p: p + 1, lambda p: p[::-1], lambda p: p.at[0].add(1e-7))
    ]
    longer = dataclasses.replace(
        tiny_config, langevin=dataclasses.replace(tiny_config.langevin, num_steps=5)
    )
    folders = {
        Draws(tmp_path, *arguments).folder
        for arguments in (
            (states, tiny_config, 8, SAMPLERS),
            *((other, tiny_config, 8, SAMPLERS) for other in others),
            (states, longer, 8, SAMPLERS),
            (states, tiny_config, 8, SAMPLERS[:2]),
        )
    }
    assert len(folders) == 3 + len(others)


X = np.arange(24, dtype=np.uint8)


@pytest.mark.parametrize(
    'one, other',
    [
        (X.reshape(2, 3, 4), X.reshape(4, 3, 2)),
        (X, X.astype(np.int8)),
        (X, X[::-1]),
        ({'a': X, 'b': X + 1}, {'a': X + 1, 'b': X}),
        ({'a': X}, {'b': X}),
        ((X[:10], X[10:]), (X[:12], X[12:])),
        ({'a': {'b': X}}, {'a': X}),
        (np.float32([0.0]), np.float32([-0.0])),
    ],
)
def test_a_fingerprint_tells_arrays_apart(one, other):
    copy = jax.tree.map(lambda leaf: np.asfortranarray(leaf.copy()), one)
    assert fingerprint(one) == fingerprint(copy) != fingerprint(other)


def test_a_fingerprint_knows_the_machine(monkeypatch):
    seen = {fingerprint(X)}
    device = dataclasses.make_dataclass('Device', ['platform', 'device_kind'])
    for kind in ('NVIDIA H100', 'NVIDIA H200'):
        with monkeypatch.context() as patch:
            patch.setattr(jax, 'local_devices', lambda kind=kind: 2 * [device('gpu', kind)])
            seen.add(fingerprint(X))
    monkeypatch.setattr(jax, '__version__', '0.0.1')
    assert len(seen | {fingerprint(X)}) == 4
