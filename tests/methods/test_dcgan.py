"""DCGAN, and what its critic shares with that of WGAN-GP."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.configs import rival

from vaebm_jax import create_states, energy_fn
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods import METHODS, guards
from vaebm_jax.methods.dcgan import dcgan_step
from vaebm_jax.models import spectral
from vaebm_jax.models.vae import sample_prior
from vaebm_jax.samplers.keys import chain_keys

KEY = jax.random.key(3)
STEP = jax.jit(dcgan_step, static_argnums=3)
BATCH = Batch(jax.random.uniform(jax.random.key(1), (8, 8, 8, 1), minval=-1.0))


def with_energy(config, **settings):
    return dataclasses.replace(config, energy=dataclasses.replace(config.energy, **settings))


def test_logits_of_0_cost_log_2():
    config = with_energy(rival('dcgan'), learning_rate=1e-30)
    states = create_states(KEY, config)
    zeros = jax.tree.map(jnp.zeros_like, states.energy.params)
    states = states.replace(energy=states.energy.replace(params=zeros))
    _, metrics = STEP(KEY, states, BATCH, config)
    assert float(metrics['critic_loss']) == pytest.approx(2 * np.log(2))
    assert float(metrics['generator_loss']) == pytest.approx(np.log(2))


def sign_step(loss_fn, params, rate):
    """Adam's first."""
    grads = jax.jit(jax.grad(loss_fn))(params)
    step = lambda param, grad: param - rate * np.asarray(grad / (np.abs(grad) + 1e-8))
    return jax.tree.map(step, params, grads)


def test_a_step_by_hand():
    """The critic's, then the generator's on new z and the new critic."""
    config = rival('dcgan')
    states = create_states(KEY, config)
    critic, decoder = states.energy, states.decoder
    logit = lambda params, x: critic.apply_fn({'params': params}, x)
    first, second = (
        sample_prior(chain_keys(key, 8), 8, config.latent_dim)
        for key in jax.random.split(jax.random.fold_in(KEY, 0))
    )
    fake = decoder.apply_fn({'params': decoder.params}, first)

    def critic_loss(params):
        of_data, of_fake = logit(params, BATCH.image), logit(params, fake)
        return -jnp.mean(jax.nn.log_sigmoid(of_data) + jax.nn.log_sigmoid(-of_fake))

    learned = sign_step(critic_loss, critic.params, config.energy.learning_rate)

    def generator_loss(params):
        image = decoder.apply_fn({'params': params}, second)
        return -jnp.mean(jax.nn.log_sigmoid(logit(learned, image)))

    loss = generator_loss(decoder.params)
    drawn = sign_step(generator_loss, decoder.params, config.vae.learning_rate)

    after, metrics = STEP(KEY, states, BATCH, config)
    close = lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5)
    jax.tree.map(close, after.energy.params, learned)
    jax.tree.map(close, after.decoder.params, drawn)
    assert float(metrics['critic_loss']) == pytest.approx(float(critic_loss(critic.params)), 1e-5)
    assert float(metrics['generator_loss']) == pytest.approx(float(loss), 1e-5)
    assert float(metrics['energy_data']) == pytest.approx(
        -float(jnp.mean(logit(critic.params, BATCH.image))), 1e-5
    )
    assert int(after.step) == int(after.energy.step) == int(after.decoder.step) == 1


@pytest.mark.parametrize('method', ['dcgan', 'wgan_gp'])
def test_the_energy_of_a_critic_is_minus_its_output(method):
    """Whatever the config's reference and scale, which the method does not use."""
    config = with_energy(rival(method), reference_std=0.016, scale=7.0)
    states = create_states(KEY, config)
    output = states.energy.apply_fn({'params': states.energy.params}, BATCH.image)
    np.testing.assert_allclose(energy_fn(states, config)(BATCH.image), -output, rtol=1e-6)


def test_a_critics_gradient_is_clipped_in_its_own_units():
    config = with_energy(rival('dcgan'), max_grad_norm=0.01)
    after, metrics = STEP(KEY, create_states(KEY, config), BATCH, config)
    assert metrics['grad_norm/energy'] > 0.01
    first_moment = optax.tree.get(after.energy.opt_state, 'mu')
    assert float(optax.tree.norm(first_moment)) == pytest.approx(0.5 * 0.01, 1e-4)


@pytest.mark.parametrize('method', ['dcgan', 'wgan_gp'])
def test_a_critic_may_have_a_spectral_norm(method):
    config = with_energy(rival(method), spectral_norm=1.0)
    states = create_states(KEY, config)
    step = jax.jit(METHODS[method].step, static_argnums=3)
    after, _ = step(KEY, states, BATCH, config)
    again, _ = step(KEY, after, BATCH, config)
    for u, before in zip(
        jax.tree.leaves(again.energy.extra), jax.tree.leaves(after.energy.extra), strict=True
    ):
        assert u.size == 1 or np.abs(u - before).max() > 0
    params = spectral.normalize(again.energy.params, again.energy.extra)
    output = again.energy.apply_fn({'params': params}, BATCH.image)
    energies = energy_fn(again, config, ema=False)(BATCH.image)
    np.testing.assert_allclose(energies, -output, rtol=1e-5)


def test_a_collapsed_generator_is_told():
    assert guards.gan_warnings(500, {'spread': 0.9}) == []
    assert guards.gan_warnings(100, {'spread': 0.01}) == []
    (line,) = guards.gan_warnings(500, {'spread': 0.01})
    assert line.startswith('warning: all samples look the same (spread 0.01 of ')
