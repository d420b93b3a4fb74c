"""Models that come with the package: their files, what they draw, and runs that start from them."""

import dataclasses
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.runs import train
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from vaebm_jax import create_states, energy_fn, generate, load
from vaebm_jax.config import EnergyConfig, validate
from vaebm_jax.models import spectral
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training import pretrained
from vaebm_jax.training.pretrained import load_pretrained, pretrained_names

KEY = jax.random.key(0)


def publish(folder, name, states, config):
    """As tools/pretrained.py does."""
    np.savez(folder / f'{name}.npz', **pretrained.stored_arrays(states))
    digest = hashlib.sha256((folder / f'{name}.npz').read_bytes()).hexdigest()
    about = {'sha256': digest, 'config': dataclasses.asdict(config)}
    (folder / f'{name}.json').write_text(json.dumps(about))


@pytest.fixture
def published(tmp_path, monkeypatch, tiny_config):
    """Averages that differ from the parameters, of an energy with spectral norm."""
    energy = EnergyConfig(reference_std=0.0, scale=10.0, spectral_norm=1.0)
    config = dataclasses.replace(tiny_config, energy=energy, num_steps=2)
    states = create_states(KEY, config)
    states = states.replace(
        models={
            name: model.replace(ema_params=jax.tree.map(lambda leaf: leaf + 0.25, model.params))
            for name, model in states.models.items()
        }
    )
    publish(tmp_path, 'tiny', states, config)
    monkeypatch.setattr(pretrained, 'FOLDER', tmp_path)
    return states, config


def test_they_are_the_averages_in_16_bits(published):
    states, config = published
    loaded, loaded_config = load_pretrained('tiny')
    assert pretrained_names() == ['tiny'] and loaded_config.init_from == 'pretrained:tiny'
    assert dataclasses.replace(loaded_config, init_from='') == config
    assert int(loaded.step) == 0
    for name, model in states.models.items():
        new = loaded.models[name]
        for part in ('params', 'ema_params'):
            jax.tree.map(
                lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4),
                getattr(new, part),
                model.ema_params,
            )
        assert jax.tree.structure(new.opt_state) == jax.tree.structure(model.opt_state)
        moments = jax.tree.leaves(new.opt_state)
        assert all(not np.any(leaf) for leaf in moments)
    exact = states.energy.replace(extra=spectral.start(states.energy.ema_params))
    states = states.replace(energy=exact)
    x = jnp.ones((2, 8, 8, 1))
    np.testing.assert_allclose(
        energy_fn(loaded, config)(x), energy_fn(states, config)(x), rtol=1e-2, atol=1e-2
    )


def test_a_run_starts_from_them_and_a_workdir_reads_them(published, tmp_path):
    states, config = published
    loaded, loaded_config = load('pretrained:tiny')
    still = dataclasses.replace(
        loaded_config,
        energy=dataclasses.replace(config.energy, learning_rate=1e-12),
        vae=dataclasses.replace(config.vae, learning_rate=1e-12),
    )
    after = train(still, tmp_path / 'run')
    for name, model in loaded.models.items():
        jax.tree.map(np.testing.assert_array_equal, after.models[name].params, model.params)
        assert after.models[name].was_trained
    with pytest.raises(UserError, match='step must be left out'):
        load('pretrained:tiny', step=3)


def test_a_damaged_file_and_an_unknown_name(published, tmp_path):
    content = bytearray((tmp_path / 'tiny.npz').read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / 'tiny.npz').write_bytes(content)
    with pytest.raises(UserError, match=r'tiny\.npz is damaged'):
        load_pretrained('tiny')
    with pytest.raises(UserError, match="there are pretrained models tiny; got 'huge'"):
        load_pretrained('huge')


@pytest.mark.parametrize('name', pretrained_names())
def test_the_files_of_the_package(name):
    about = pretrained.describe(name)
    states, config = load_pretrained(name)
    validate(config)
    assert {'commit', 'commands', 'versions', 'processor', 'cpu_minutes', 'step'} <= about.keys()
    for model in states.models.values():
        for leaf in jax.tree.leaves(model.params):
            assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()


def test_the_digits_are_legible():
    """As a logistic regression reads them; of the real digits it is sure of 88 %."""
    digits = load_digits()
    judge = LogisticRegression(max_iter=1000).fit(digits.data / 8.0 - 1.0, digits.target)
    states, config = load_pretrained('digits')
    ancestral, refined = (
        judge.predict_proba(np.clip(images, -1.0, 1.0).reshape(400, -1)).max(axis=1) >= 0.9
        for images in generate(KEY, states, config, 400)
    )
    assert refined.mean() > 0.5 and refined.mean() > ancestral.mean()
