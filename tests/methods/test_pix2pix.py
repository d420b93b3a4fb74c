"""pix2pix: its losses, and one whole step by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configs import rival
from helpers.runs import assert_learned, with_plain_steps

from vaebm_jax import Batch, create_states, energy_fn
from vaebm_jax.config import Config, VAEConfig, validate
from vaebm_jax.data.conditions import fixed_condition
from vaebm_jax.methods import METHODS
from vaebm_jax.methods.losses import bce
from vaebm_jax.methods.patches import patch_loss
from vaebm_jax.models.vae import sample_prior
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.keys import chain_keys

KEY = jax.random.key(3)
CONFIG = rival('pix2pix')
IMAGES = jax.random.uniform(jax.random.key(1), (6, 8, 8, 1), minval=-1.0)
BATCH = Batch(IMAGES, fixed_condition(IMAGES, CONFIG.condition))
STEP = jax.jit(METHODS['pix2pix'].step, static_argnums=3)


def maps_of(critic, params, x):
    (logits,) = critic.apply_fn({'params': params}, x, BATCH.condition, method='maps')
    assert logits.shape == (6, 4, 4)
    return logits


@functools.cache
def with_l1_weight(weight):
    return dataclasses.replace(CONFIG, vae=VAEConfig(l1_weight=weight))


def in_the_hole(x):
    return x[:, 2:6, 2:6]


def test_a_patch_is_judged_by_itself():
    """The mean of the losses of 0 and 4 is not the loss of their mean."""
    maps = (jnp.array([[[0.0, 4.0]]]), jnp.array([[[1.0]]]))
    loss = lambda logit: np.log1p(np.exp(-logit))
    expected = (loss(0.0) + loss(4.0)) / 2 + loss(1.0)
    np.testing.assert_allclose(patch_loss(maps, True, bce), [expected], rtol=1e-6)
    assert abs(expected - loss(2.0) - loss(1.0)) > 0.2


def test_logits_of_0_cost_log_2():
    states = with_plain_steps(create_states(KEY, CONFIG))
    zeros = jax.tree.map(jnp.zeros_like, states.energy.params)
    states = states.replace(energy=states.energy.replace(params=zeros))
    _, metrics = STEP(KEY, states, BATCH, with_l1_weight(0.0))
    assert float(metrics['critic_loss']) == pytest.approx(np.log(2))


@pytest.mark.parametrize('weight', [0.0, 3.0])
def test_a_step_by_hand(weight):
    """The critic's, then the generator's of the same z and the new critic."""
    config = with_l1_weight(weight)
    states = with_plain_steps(create_states(KEY, config))
    critic, decoder = states.energy, states.decoder
    z = sample_prior(chain_keys(jax.random.fold_in(KEY, 0), 6), 6, config.latent_dim)
    draw = lambda params: decoder.apply_fn({'params': params}, z, BATCH.condition)
    fake = draw(decoder.params)
    log = jax.nn.log_sigmoid

    def critic_loss(params):
        of_data, of_fake = (maps_of(critic, params, x) for x in (IMAGES, fake))
        return -0.5 * jnp.mean(log(of_data) + log(-of_fake))

    after, metrics = STEP(KEY, states, BATCH, config)
    assert_learned(after.energy, critic, critic_loss)

    def generator_loss(params):
        error = jnp.mean(jnp.abs(in_the_hole(draw(params) - IMAGES)))
        from_critic = -jnp.mean(log(maps_of(critic, after.energy.params, draw(params))))
        return from_critic + (weight or 100.0) * error

    assert_learned(after.decoder, decoder, generator_loss)
    assert float(metrics['critic_loss']) == pytest.approx(float(critic_loss(critic.params)), 1e-5)
    energies = energy_fn(states, config, ema=False, condition=BATCH.condition)(IMAGES)
    assert float(metrics['energy_data']) == pytest.approx(float(energies.mean()), 1e-5)


@pytest.mark.parametrize('method', ['pix2pix', 'cvae_gan', 'cvae_gan_pp', 'bicycle_gan'])
def test_what_does_not_fit_is_refused(method):
    dense = f'network.energy must be without dense rows with method {method}, '
    with pytest.raises(UserError, match=f'condition.kind must be another .* {method}.*{dense}'):
        validate(Config(method=method))
    validate(rival(method))


@pytest.mark.parametrize('method', ['cvae_gan_pp', 'bicycle_gan'])
def test_a_half_of_the_batch_has_an_image(method):
    with pytest.raises(UserError, match='batch_size must be at least 2 with method'):
        validate(dataclasses.replace(rival(method), batch_size=1))
