"""`langevin.prior_steps`: z moves towards a low energy of its image before it is decoded."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.linear_models import linear_decoder, model
from helpers.runs import train
from PIL import Image

from vaebm_jax import States, create_states, generate
from vaebm_jax.config import Config, EnergyConfig, LangevinConfig
from vaebm_jax.evaluation.scores import evaluate
from vaebm_jax.figures.grids import side_by_side
from vaebm_jax.methods import METHODS, sample_stages
from vaebm_jax.methods.chains import refine_z, run_chain
from vaebm_jax.methods.generate import generate_keys, revision
from vaebm_jax.samplers.keys import chain_keys
from vaebm_jax.tasks.images import sample

KEY = jax.random.key(0)


def with_steps(config, num_steps):
    langevin = dataclasses.replace(config.langevin, prior_steps=num_steps, prior_temperature=50.0)
    return dataclasses.replace(config, langevin=langevin)


def test_z_has_the_tilted_prior_of_a_linear_decoder():
    """U = |x|²/(2 σ²): precision P = I + W'W/(σ² T); ULA has variances 1 / (p (1 - δ² p / 4))."""
    num_chains, delta, std, temperature = 20_000, 0.1, 0.5, 3.0
    w = np.array([[1.0, 0.2], [-0.5, 1.5], [0.3, 0.1], [0.0, 2.0]], np.float32)
    steps = dict(prior_steps=150, prior_step_size=delta, prior_temperature=temperature)
    config = Config(
        latent_dim=2, langevin=LangevinConfig(**steps), energy=EnergyConfig(reference_std=std)
    )
    no_f = model(lambda variables, x, condition: jnp.zeros(len(x)))
    states = States(energy=no_f, decoder=model(linear_decoder, w=w))
    z = np.asarray(refine_z(KEY, states, config, jnp.zeros((num_chains, 2))), np.float64)
    values, axes = np.linalg.eigh(np.eye(2) + w.T @ w / (std**2 * temperature))
    expected = axes @ np.diag(1.0 / (values * (1.0 - delta**2 * values / 4.0))) @ axes.T
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(np.cov(z.T), expected, atol=0.02 * expected.max())


@pytest.mark.parametrize('method', ['vaebm', 'coopnets'])
def test_the_chain_starts_from_the_latent_stage(tiny_config, method):
    without = dataclasses.replace(tiny_config, method=method)
    config = with_steps(without, 3)
    assert list(sample_stages(config)) == ['ancestral', 'latent', 'refined']
    assert list(sample_stages(without)) == ['ancestral', 'refined']
    assert sample_stages(config)['latent'] == 'after 3 Langevin steps on z'
    states = create_states(KEY, config)
    keys = tuple(chain_keys(key, 5) for key in generate_keys(KEY))
    drawn = METHODS[method].sample(keys, states, config, 5)
    plain = METHODS[method].sample(keys, states, without, 5)
    np.testing.assert_allclose(drawn['ancestral'], plain['ancestral'], atol=1e-6)
    assert np.abs(drawn['latent'] - drawn['ancestral']).max() > 1e-3
    num_steps = config.langevin.num_steps
    refined, _ = run_chain(keys[1], states.energy, config, drawn['latent'], num_steps)
    np.testing.assert_allclose(drawn['refined'], refined, atol=1e-5)

    last = METHODS[method].sample(tuple(key[3:] for key in keys), states, config, 2)
    for name, images in drawn.items():
        np.testing.assert_allclose(images[3:], last[name], atol=1e-5)
    film = revision(KEY, states, config, 5)
    np.testing.assert_allclose(film[0], drawn['latent'], atol=1e-5)
    ends = generate(KEY, states, config, 5, ema=False)
    for images, name in zip((*ends, film[-1]), ('ancestral', 'refined', 'refined'), strict=True):
        np.testing.assert_allclose(images, drawn[name], atol=1e-5)


def test_it_is_scored_and_drawn_and_may_change_when_a_run_goes_on(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, num_steps=2)
    whole = train(with_steps(dataclasses.replace(config, num_steps=4), 2), tmp_path / 'whole')
    train(config, tmp_path / 'run')
    config = with_steps(dataclasses.replace(config, num_steps=4), 2)
    states = train(config, tmp_path / 'run')
    for one, other in zip(*map(jax.tree.leaves, (states.models, whole.models)), strict=True):
        np.testing.assert_array_equal(one, other)  # Training has no such steps.
    result = evaluate(config, tmp_path / 'run', num_samples=8)
    assert result['latent']['num_samples'] == 8
    assert {'ancestral', 'latent', 'refined', 'refined_2x'} <= result.keys()
    sample(config, tmp_path / 'run', num_samples=64)
    panels = {}
    for name, caption in sample_stages(config).items():
        with np.load(tmp_path / 'run' / 'samples' / f'{name}.npz') as arrays:
            panels[caption] = arrays['images']
    assert len(panels) == 3
    side_by_side(tmp_path / 'expected.png', panels)
    drawn, expected = (
        np.asarray(Image.open(path), np.int32)
        for path in (tmp_path / 'run/samples/grid.png', tmp_path / 'expected.png')
    )
    np.testing.assert_allclose(drawn, expected, atol=1)
