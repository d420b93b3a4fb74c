"""WGAN-GP: the critic's updates, each on its part of the batch, and the generator's."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.configs import rival

from vaebm_jax import create_states
from vaebm_jax.config import Config, validate
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods import METHODS, is_unused
from vaebm_jax.methods.devices import rows_of_part
from vaebm_jax.methods.wgan_gp import num_updates, wgan_gp_step
from vaebm_jax.models.create import learning_rate
from vaebm_jax.models.energy import mle_loss
from vaebm_jax.models.vae import sample_prior
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.keys import chain_keys, fold_in

KEY = jax.random.key(3)
STEP = jax.jit(wgan_gp_step, static_argnums=3)
BATCH = Batch(jax.random.uniform(jax.random.key(1), (7, 8, 8, 1), minval=-1.0))


def of_updates(number, **settings):
    config = rival('wgan_gp')
    energy = dataclasses.replace(config.energy, updates=number, **settings)
    return dataclasses.replace(config, energy=energy)


def test_the_papers_number_of_updates_is_the_default():
    assert num_updates(Config(method='wgan_gp')) == 5
    assert num_updates(of_updates(3)) == 3
    users = [name for name in METHODS if not is_unused('energy.updates', Config(method=name))]
    assert users == ['wgan_gp']


def test_an_update_without_images_is_refused():
    config = dataclasses.replace(Config(method='wgan_gp'), batch_size=4)
    with pytest.raises(UserError, match=r'batch_size must be at least 5: .*updates\), got 4'):
        validate(config)
    validate(dataclasses.replace(config, batch_size=5))


@pytest.mark.parametrize('num_images, num_parts', [(128, 5), (8, 3)])
def test_parts_are_disjoint_and_the_same_on_any_number_of_devices(num_images, num_parts):
    parts = jax.jit(
        jax.vmap(
            lambda image, part: rows_of_part(part, num_parts, Batch(image), 'devices'),
            in_axes=(0, None),
            axis_name='devices',
        )
    )
    for num_devices in (1, 2, 4):
        images = np.arange(num_images).reshape(num_devices, -1, 1, 1, 1)
        found = []
        for part in range(num_parts):
            rows, weights = parts(images, part)
            rows, weights = np.asarray(rows), np.asarray(weights)
            numbers = np.take_along_axis(images[..., 0, 0, 0], rows, axis=1)[weights > 0]
            assert sorted(numbers) == list(range(part, num_images, num_parts))
            np.testing.assert_allclose(weights.sum(axis=1).mean(), 1.0, rtol=1e-6)
            assert len(np.unique(weights[weights > 0])) == 1
            found += list(numbers)
        assert sorted(found) == list(range(num_images))


@functools.partial(jax.jit, static_argnums=(0, 1))
def follow(adam, loss_fn, params, memory, *images):
    changes, memory = adam.update(jax.grad(loss_fn)(params, *images), memory)
    return optax.apply_updates(params, changes), memory


def test_a_step_by_hand():
    """Two updates of the critic, on images 0, 2, 4, 6 and 1, 3, 5; then one of the generator."""
    config = of_updates(2)
    states = create_states(KEY, config)
    critic, decoder = states.energy, states.decoder
    output = lambda params, x: critic.apply_fn({'params': params}, x)
    key_critic, key_generator = jax.random.split(jax.random.fold_in(KEY, 0))
    keys = chain_keys(key_critic, 7)
    fakes = decoder.apply_fn(
        {'params': decoder.params}, sample_prior(fold_in(keys, 0), 7, config.latent_dim)
    )
    alphas = jax.vmap(jax.random.uniform)(fold_in(keys, 1))

    def critic_loss(params, real, fake, alpha):
        def penalty(one, other, alpha):
            output_of = lambda x: output(params, x[jnp.newaxis])[0]
            slope = jax.grad(output_of)(one + alpha * (other - one))
            return (jnp.sqrt(jnp.sum(slope**2)) - 1.0) ** 2

        loss = jnp.mean(output(params, fake)) - jnp.mean(output(params, real))
        return loss + 10.0 * jnp.mean(jax.vmap(penalty)(real, fake, alpha))

    adam = optax.adam(config.energy.learning_rate, 0.5)
    learned, memory = critic.params, adam.init(critic.params)
    for rows in (slice(0, 7, 2), slice(1, 7, 2)):
        images = BATCH.image[rows], fakes[rows], alphas[rows]
        learned, memory = follow(adam, critic_loss, learned, memory, *images)

    z = sample_prior(chain_keys(key_generator, 7), 7, config.latent_dim)
    generator_loss = lambda params: (
        -jnp.mean(output(learned, decoder.apply_fn({'params': params}, z)))
    )
    adam = optax.adam(config.vae.learning_rate, 0.5)
    drawn, _ = follow(adam, generator_loss, decoder.params, adam.init(decoder.params))

    after, metrics = STEP(KEY, states, BATCH, config)
    close = lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5)
    jax.tree.map(close, after.energy.params, learned)
    jax.tree.map(close, after.decoder.params, drawn)
    assert float(metrics['generator_loss']) == pytest.approx(
        float(generator_loss(decoder.params)), abs=1e-5
    )
    assert (int(after.step), int(after.energy.step), int(after.decoder.step)) == (1, 2, 1)


def test_without_learning_the_critics_loss_is_that_of_maximum_likelihood():
    config = of_updates(7, learning_rate=1e-30)
    states = create_states(KEY, config)
    _, metrics = STEP(KEY, states, BATCH, config)
    key, _ = jax.random.split(jax.random.fold_in(KEY, 0))
    z = sample_prior(fold_in(chain_keys(key, 7), 0), 7, config.latent_dim)
    fakes = states.decoder.apply_fn({'params': states.decoder.params}, z)
    params = {'params': states.energy.params}
    energies = [-states.energy.apply_fn(params, x) for x in (BATCH.image, fakes)]
    assert float(metrics['energy_data'] - metrics['energy_samples']) == pytest.approx(
        float(mle_loss(*energies)), abs=1e-6
    )


def test_the_schedule_is_of_iterations():
    """All of an iteration's updates have one rate: Adam's step on a constant gradient."""
    config = of_updates(3)
    schedule = dataclasses.replace(config.schedule, name='linear', decay_share=1.0)
    config = dataclasses.replace(config, schedule=schedule, num_steps=4)
    state = create_states(KEY, config).energy
    ones = jax.tree.map(jnp.ones_like, state.params)
    memory, rates = state.opt_state, []
    for _ in range(12):
        changes, memory = state.tx.update(ones, memory)
        rates.append(-float(jax.tree.leaves(changes)[0].max()))
    expected = [
        float(learning_rate(config.energy.learning_rate, schedule, 4)(step)) for step in range(4)
    ]
    assert len(set(expected)) == 4
    np.testing.assert_allclose(rates, np.repeat(expected, 3), rtol=1e-4)
