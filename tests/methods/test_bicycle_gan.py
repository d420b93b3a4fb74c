"""cVAE-GAN, cVAE-GAN++ and BicycleGAN: one whole step by hand, and what they have in common."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configs import rival
from helpers.runs import assert_learned, with_plain_steps

from vaebm_jax import Batch, create_states
from vaebm_jax.config import VAEConfig
from vaebm_jax.data.conditions import fixed_condition
from vaebm_jax.methods import METHODS
from vaebm_jax.methods.cvae_gan import rebuilding_loss
from vaebm_jax.models.vae import reparameterize, sample_prior
from vaebm_jax.samplers.keys import chain_keys, fold_in

KEY = jax.random.key(3)
CONFIG = rival('bicycle_gan')
IMAGES = jax.random.uniform(jax.random.key(1), (6, 8, 8, 1), minval=-1.0)
BATCH = Batch(IMAGES, fixed_condition(IMAGES, CONFIG.condition))
KEYS = chain_keys(jax.random.fold_in(KEY, 0), 6)
WEIGHTS = {'cvae_gan': (0, 0), 'cvae_gan_pp': (1, 0), 'bicycle_gan': (1, 0.5)}


def states_of(method):
    return with_plain_steps(create_states(KEY, dataclasses.replace(CONFIG, method=method)))


@functools.cache
def call_of(method):
    config = dataclasses.replace(CONFIG, method=method)
    return jax.jit(lambda states: METHODS[method].step(KEY, states, BATCH, config))


@functools.cache
def step(method):
    """The states after one step, and metrics."""
    return call_of(method)(states_of(method))


def maps_of(critic, params, x):
    """Of an image alone, without its condition."""
    return critic.apply_fn({'params': params}, x, method='maps')


def squares(maps, target):
    fine, coarse = maps
    assert fine.shape[1:] == (4, 4) and coarse.shape[1:] == (2, 2)
    return jnp.mean((fine - target) ** 2) + jnp.mean((coarse - target) ** 2)


def posterior(states, encoder_params, x, condition):
    return states.encoder.apply_fn({'params': encoder_params}, x, condition)


def rebuilt(states, encoder_params, decoder_params):
    mean, log_std = posterior(states, encoder_params, IMAGES, BATCH.condition)
    z = reparameterize(fold_in(KEYS, 0), mean, log_std)
    images = states.decoder.apply_fn({'params': decoder_params}, z, BATCH.condition)
    rate = 0.5 * jnp.sum(mean**2 + jnp.exp(2 * log_std) - 1 - 2 * log_std, axis=1)
    return images, jnp.mean(rate)


def recovered(states, decoder_params):
    """Of the images of even index, with z from the prior."""
    z = sample_prior(fold_in(KEYS, 2)[::2], 3, CONFIG.latent_dim)
    return states.decoder.apply_fn({'params': decoder_params}, z, BATCH.condition[::2]), z


@pytest.mark.parametrize('method', WEIGHTS)
def test_a_step_by_hand(method):
    """Encoder and decoder learn by the old critics, and these by the images of the old decoder."""
    states, (after, metrics) = states_of(method), step(method)
    prior_weight, z_weight = WEIGHTS[method]
    assert set(after.models) == set(METHODS[method].roles)
    old = {name: model.params for name, model in states.models.items()}

    def rebuilding(encoder_params, decoder_params):
        images, rate = rebuilt(states, encoder_params, decoder_params)
        error = jnp.mean(jnp.abs(images - IMAGES)[:, 2:6, 2:6])
        judged = squares(maps_of(states.energy, old['energy'], images), 1)
        return judged + 10 * error + 0.01 * rate

    def of_the_prior(decoder_params):
        images, z = recovered(states, decoder_params)
        loss = 0.0
        if prior_weight:
            critic = states.models['energy_prior']
            loss += squares(maps_of(critic, old['energy_prior'], images), 1)
        if z_weight:
            mean, _ = posterior(states, old['encoder'], images, BATCH.condition[::2])
            loss += z_weight * jnp.mean(jnp.abs(mean - z))
        return loss

    decoder_loss = lambda params: rebuilding(old['encoder'], params) + of_the_prior(params)
    assert_learned(after.decoder, states.decoder, decoder_loss)
    if method == 'cvae_gan_pp':
        return  # The other models learn as in the other two: see the next test.
    # The encoder does not learn from the error of z.
    encoder_loss = lambda params: rebuilding(params, old['decoder'])
    assert_learned(after.encoder, states.encoder, encoder_loss)

    def critic_loss(critic, data, samples, params):
        of_data, of_samples = (maps_of(critic, params, x) for x in (data, samples))
        return squares(of_data, 1) + squares(of_samples, 0)

    samples, _ = rebuilt(states, old['encoder'], old['decoder'])
    loss = functools.partial(critic_loss, states.energy, IMAGES, samples)
    assert_learned(after.energy, states.energy, loss)
    assert float(metrics['critic_loss']) == pytest.approx(float(loss(old['energy'])), rel=1e-5)
    if prior_weight:
        critic = states.models['energy_prior']
        samples, _ = recovered(states, old['decoder'])
        loss = functools.partial(critic_loss, critic, IMAGES[1::2], samples)
        assert_learned(after.models['energy_prior'], critic, loss)


def test_critic_and_encoder_learn_as_in_cvae_gan():
    """Images of z from the prior teach the decoder and their own critic alone."""
    results = {method: step(method)[0] for method in WEIGHTS}
    for name in ('energy', 'encoder'):
        ours, pp, first = (results[method].models[name].params for method in reversed(WEIGHTS))
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), ours, first)
        jax.tree.map(np.testing.assert_array_equal, ours, pp)
    prior = [results[method].models['energy_prior'].params for method in [*WEIGHTS][1:]]
    jax.tree.map(np.testing.assert_array_equal, *prior)
    decoders = [results[method].decoder.params['image']['kernel'] for method in WEIGHTS]
    for one, other in zip(decoders, decoders[1:], strict=False):
        assert np.abs(one - other).max() > 1e-3


def test_the_two_critics_are_not_the_same():
    states = create_states(KEY, CONFIG)
    one, other = (
        jax.tree.leaves(states.models[name].params) for name in ('energy', 'energy_prior')
    )
    assert [leaf.shape for leaf in one] == [leaf.shape for leaf in other]
    assert any(
        np.abs(first - second).max() > 0.01 for first, second in zip(one, other, strict=True)
    )


def test_an_encoder_that_reads_nothing_errs_by_all_of_z():
    """By 0.8 on average, that of a normal number from its mean."""
    states = states_of('bicycle_gan')
    zeros = jax.tree.map(jnp.zeros_like, states.encoder.params)
    _, metrics = call_of('bicycle_gan')(
        states.replace(encoder=states.encoder.replace(params=zeros))
    )
    z = sample_prior(fold_in(KEYS, 2)[::2], 3, CONFIG.latent_dim)
    assert float(metrics['prior/z_error']) == pytest.approx(np.abs(z).mean(), rel=1e-5)
    assert float(metrics['rate']) == 0.0


def test_the_weight_of_the_absolute_error_acts():
    states = create_states(KEY, CONFIG)
    losses = {}
    for weight in (0.0, 10.0, 40.0):
        config = dataclasses.replace(CONFIG, vae=VAEConfig(l1_weight=weight))
        losses[weight], metrics = rebuilding_loss(KEYS, states.models, states.energy, BATCH, config)
    assert losses[0.0] == losses[10.0]
    assert float(losses[40.0] - losses[10.0]) == pytest.approx(30 * float(metrics['l1']), rel=1e-4)
