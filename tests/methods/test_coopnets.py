"""Cooperative networks: inference by Langevin dynamics, teaching by known z, one whole step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.linear_models import linear_decoder, model
from helpers.runs import assert_same_states, train

from vaebm_jax import Batch, States, generate, load
from vaebm_jax.config import Config, EnergyConfig, LangevinConfig, VAEConfig, validate
from vaebm_jax.methods import METHODS
from vaebm_jax.methods.coopnets import PIXEL_STD, coopnets_step, infer
from vaebm_jax.models.vae import sample_prior
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.keys import chain_keys

KEY = jax.random.key(2)
W = np.array([[1.0, 0.4], [-0.3, 0.5], [0.2, 0.2], [0.0, 0.6]], np.float32)  # 4 pixels of 2 z.
SLOPE = np.array([0.5, -1.0, 2.0, 0.25], np.float32)


def linear_energy(variables, x, condition):
    return x.reshape(len(x), -1) @ variables['params']['slope']


def config_of(**langevin):
    langevin = {'num_steps': 3, 'step_size': 0.4, 'noise_scale': 0.0} | langevin
    return Config(
        method='coopnets',
        num_chains=6,
        latent_dim=2,
        langevin=LangevinConfig(**langevin),
        energy=EnergyConfig(reference_std=0.0, scale=1.5),
    )


def states_of(slope=SLOPE):
    return States(energy=model(linear_energy, slope=slope), decoder=model(linear_decoder, w=W))


def test_inferred_z_has_the_posterior_of_a_linear_decoder():
    """Precision P = I + W'W/s², mean S W'x/s²; the chain's variance is 1 / (p (1 - δ² p / 4))."""
    num_chains, delta = 20_000, 0.1
    x = jnp.broadcast_to(
        jnp.array([0.9, -0.4, 0.3, 0.5]).reshape(1, 2, 2, 1), (num_chains, 2, 2, 1)
    )
    config = config_of(latent_steps=150, latent_step_size=delta)
    start = jnp.zeros((num_chains, 2))
    z = np.asarray(infer(KEY, model(linear_decoder, w=W), start, x, config), np.float64)
    precision = np.eye(2) + W.T @ W / PIXEL_STD**2
    mean = np.linalg.solve(precision, W.T @ np.asarray(x[0]).ravel() / PIXEL_STD**2)
    np.testing.assert_allclose(z.mean(axis=0), mean, atol=0.01)
    values, axes = np.linalg.eigh(precision)
    expected = axes @ np.diag(1.0 / (values * (1.0 - delta**2 * values / 4.0))) @ axes.T
    np.testing.assert_allclose(np.cov(z.T), expected, atol=0.02 * expected.max())


def test_a_chains_inference_does_not_depend_on_the_others():
    """As it would if the likelihood were a mean over chains."""
    config = config_of(latent_steps=4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 2, 1)), jnp.float32)
    keys, decoder = chain_keys(KEY, 6), model(linear_decoder, w=W)
    z = sample_prior(keys, 6, 2)
    together = infer(keys, decoder, z, x, config)
    alone = infer(keys[3:4], decoder, z[3:4], x[3:4], config)
    np.testing.assert_allclose(together[3:4], alone, rtol=1e-6)
    assert np.abs(together - z).min() > 1e-3


@pytest.mark.parametrize('num_steps', [0, 3])
def test_a_step_on_a_linear_energy(num_steps):
    """f = w'x: chains end at g(z) + T ½ δ² scale w, and so does what g learns, with the same z."""
    config = config_of(num_steps=num_steps)
    images = np.random.default_rng(1).normal(size=(4, 2, 2, 1)).astype(np.float32)
    after, metrics = jax.jit(coopnets_step, static_argnames='config')(
        KEY, states_of(), Batch(jnp.asarray(images)), config
    )
    key_prior = jax.random.split(jax.random.fold_in(KEY, 0), 3)[0]
    z = np.asarray(sample_prior(chain_keys(key_prior, 6), 6, 2))
    moved = num_steps * 0.5 * 0.4**2 * 1.5 * SLOPE
    # Minus the gradient of |x - W z|² / (2 s²).
    gain = np.mean(moved[None, :, None] * z[:, None], axis=0) / PIXEL_STD**2
    np.testing.assert_allclose(after.decoder.params['w'] - W, gain, atol=1e-5)
    assert metrics['distortion'] == pytest.approx(np.sum(moved**2), rel=1e-5)
    refined = z @ W.T + moved
    rise = 1.5 * (images.reshape(4, -1).mean(axis=0) - refined.mean(axis=0))
    np.testing.assert_allclose(after.energy.params['slope'] - SLOPE, rise, atol=1e-5)
    assert (int(after.step), set(after.models)) == (1, {'energy', 'decoder'})


def test_inference_moves_what_the_decoder_learns_from_and_nothing_else():
    batch = Batch(jnp.ones((4, 2, 2, 1)))
    step = jax.jit(coopnets_step, static_argnames='config')
    same, inferred = (
        step(KEY, states_of(), batch, config_of(latent_steps=steps))[0] for steps in (0, 5)
    )
    np.testing.assert_array_equal(*(s.energy.params['slope'] for s in (same, inferred)))
    assert np.abs(same.decoder.params['w'] - inferred.decoder.params['w']).min() > 1e-3


@pytest.mark.parametrize('method, guess_weight', [('ccoopnets', 0.7), ('coopnets', 0.0)])
def test_a_truth_teaches_the_decoder_of_ccoopnets(method, guess_weight):
    """By the mean over chains of |y - g(z)|, a sum over pixels; coopnets ignores its weight.

    Three chains recover an image each.
    """
    config = dataclasses.replace(
        config_of(), method=method, num_chains=6, vae=VAEConfig(guess_weight=0.7)
    )
    images = np.random.default_rng(1).normal(size=(2, 2, 2, 1)).astype(np.float32)
    condition = jnp.concatenate([jnp.zeros((2, 2, 2, 1)), jnp.zeros((2, 2, 2, 1))], axis=-1)
    step = jax.jit(METHODS[method].step, static_argnames='config')
    after, metrics = step(KEY, states_of(), Batch(jnp.asarray(images), condition), config)
    key_prior = jax.random.split(jax.random.fold_in(KEY, 0), 3)[0]
    z = np.asarray(sample_prior(chain_keys(key_prior, 6), 6, 2))
    moved = 3 * 0.5 * 0.4**2 * 1.5 * SLOPE
    gain = np.mean(moved[None, :, None] * z[:, None], axis=0) / PIXEL_STD**2
    errors = images.reshape(2, 4).repeat(3, axis=0) - z @ W.T
    gain += guess_weight * np.mean(np.sign(errors)[:, :, None] * z[:, None], axis=0)
    np.testing.assert_allclose(after.decoder.params['w'] - W, gain, atol=1e-5)
    if guess_weight:
        expected = np.abs(errors).sum(axis=1).mean()
        assert metrics['guess_error'] == pytest.approx(expected, rel=1e-5)


def test_ccoopnets_needs_a_condition():
    with pytest.raises(UserError, match='condition.kind must be another with method ccoopnets'):
        validate(Config(method='ccoopnets'))


def test_it_resumes_bit_for_bit_and_samples_are_independent(tiny_config, tmp_path, capsys):
    tiny_config.schedule.name = 'constant'
    config = dataclasses.replace(
        tiny_config, method='coopnets', langevin=LangevinConfig(num_steps=3, latent_steps=2)
    )
    whole = train(config, tmp_path / 'whole')
    said = capsys.readouterr().err
    assert 'not used by coopnets: warmup_steps, vae.*_weight, network.encoder\n' in said
    train(dataclasses.replace(config, num_steps=4), tmp_path / 'parts')
    assert_same_states(train(config, tmp_path / 'parts'), whole)
    states, config = load(tmp_path / 'parts')
    assert set(states.models) == {'energy', 'decoder'}
    few, many = (generate(KEY, states, config, count)[1] for count in (3, 7))
    np.testing.assert_allclose(few, many[:3], atol=1e-6)
