"""Conditional models: observed pixels stay, and missing ones follow p(missing | observed)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.configs import U_NET

from vaebm_jax import Batch, create_states, make_condition, recover, train_step
from vaebm_jax.config import (
    ConditionConfig,
    Config,
    DataConfig,
    EnergyConfig,
    LangevinConfig,
    NetworkConfig,
    VAEConfig,
)
from vaebm_jax.data.conditions import fill_of, join, observed_of
from vaebm_jax.methods.chains import run_chain
from vaebm_jax.methods.parts import mean_error, truth_loss, vae_loss
from vaebm_jax.methods.vae import vae_step
from vaebm_jax.models.apply import decode
from vaebm_jax.models.networks import Decoder
from vaebm_jax.models.states import TrainState

KEY = jax.random.key(0)
MODELS = ('energy', 'encoder', 'decoder')
jit_states = jax.jit(create_states, static_argnames='config')


def hole_config(**settings):
    return Config(
        batch_size=4,
        latent_dim=4,
        data=DataConfig(num_channels=3),
        langevin=LangevinConfig(num_steps=3),
        condition=ConditionConfig('center_hole'),
        network=NetworkConfig(
            energy=(('conv', 8, 3, 2),), encoder=(('conv', 8, 3, 2),), decoder=U_NET
        ),
        **settings,
    )


def images(num_images=4, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-1.0, 1.0, (num_images, 8, 8, 3)), jnp.float32)


def batch_of(config, num_images=4):
    return Batch(images(num_images), make_condition(KEY, images(num_images), config.condition))


def shaken(states):
    """Numbers in every leaf, also of the last layer, which begins at zero."""

    def shake(state):
        leaves, structure = jax.tree.flatten(state.params)
        rng = np.random.default_rng(0)
        leaves = [leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
        params = jax.tree.unflatten(structure, leaves)
        return state.replace(params=params, ema_params=params)

    return type(states)(*(shake(getattr(states, name)) for name in MODELS))


def test_the_conditional_chain_samples_the_conditional_gaussian():
    """U = ½ xᵀ P x: hidden given seen is N(-P_hh⁻¹ P_hs seen, P_hh⁻¹), up to the step size."""
    root = np.random.default_rng(3).normal(size=(4, 4))
    precision = root @ root.T + 0.5 * np.eye(4)
    is_observed = np.array([True, False, False, True])
    seen = np.array([0.9, 0.0, 0.0, -0.6])
    step_size, num_steps, num_chains = 0.3, 400, 20_000

    def network(variables, x, condition):
        flat = x.reshape(len(x), 4)
        return -0.5 * jnp.sum((flat @ jnp.asarray(precision, jnp.float32)) * flat, axis=1)

    energy = TrainState.create(apply_fn=network, params={}, tx=optax.sgd(1.0), ema_params={})
    image = jnp.tile(jnp.asarray(seen, jnp.float32).reshape(1, 2, 2, 1), (num_chains, 1, 1, 1))
    condition = join(image, jnp.tile(jnp.asarray(is_observed).reshape(1, 2, 2), (num_chains, 1, 1)))
    config = Config(
        langevin=LangevinConfig(step_size=step_size),
        energy=EnergyConfig(reference_std=0.0, scale=1.0),
        condition=ConditionConfig('free_form'),
    )
    refined, _ = run_chain(KEY, energy, config, image, num_steps, condition)
    x = np.asarray(refined, np.float64).reshape(num_chains, 4)

    hidden = precision[np.ix_(~is_observed, ~is_observed)]
    mean = -np.linalg.solve(
        hidden, precision[np.ix_(~is_observed, is_observed)] @ seen[is_observed]
    )
    covariance = np.linalg.inv(hidden @ (np.eye(2) - step_size**2 / 4 * hidden))
    np.testing.assert_array_equal(
        x[:, is_observed], np.tile(np.float32(seen[is_observed]), (len(x), 1))
    )
    deviation = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(x[:, ~is_observed].mean(axis=0) - mean) < 4 * deviation / num_chains**0.5)
    np.testing.assert_allclose(
        np.cov(x[:, ~is_observed].T), covariance, atol=0.04 * deviation.max()
    )


@pytest.mark.parametrize('updates', ['hidden', 'all'])
def test_what_is_seen_stays_bit_for_bit(updates):
    config = hole_config()
    config.condition.updates = updates
    states, batch = shaken(jit_states(KEY, config)), batch_of(config)
    seen = np.asarray(observed_of(batch.condition))[..., 0]
    guess, refined = recover(KEY, states, config, batch.condition, num_recoveries=3)
    assert guess.shape == refined.shape == (4, 3, 8, 8, 3)
    for result in (guess, refined):
        for k in range(3):
            np.testing.assert_array_equal(result[:, k][seen], batch.image[seen])
        assert len(np.unique(result[0, :, 4, 4, 0])) == 3
    assert np.all(guess[:, :, 4, 4] != refined[:, :, 4, 4])


def test_a_recovery_depends_on_its_own_condition_alone():
    config = hole_config()
    states, condition = shaken(jit_states(KEY, config)), batch_of(config).condition
    many = recover(KEY, states, config, condition, num_recoveries=12)  # More than one call.
    few = recover(KEY, states, config, condition[:1], num_recoveries=12)
    for all_at_once, one in zip(many, few, strict=True):
        np.testing.assert_allclose(one[0], all_at_once[0], atol=1e-5)


def test_an_untrained_guess_is_the_hint():
    config = hole_config()
    condition = batch_of(config).condition
    guess, _ = recover(KEY, jit_states(KEY, config), config, condition, num_recoveries=1)
    np.testing.assert_array_equal(guess[:, 0], fill_of(condition))


@pytest.mark.parametrize('size', [8, 10, 13])
def test_u_net_shapes_and_parameters(size):
    """Of any size: what an `up` row overshoots is cropped to the map that it is joined with."""
    net = Decoder(U_NET, (size, size, 3))
    z, condition = jnp.ones((2, 4)), jnp.ones((2, size, size, 4))
    variables = jax.eval_shape(net.init, KEY, z, condition)
    assert jax.eval_shape(net.apply, variables, z, condition).shape == (2, size, size, 3)
    conv = lambda inputs, outputs: 9 * inputs * outputs + outputs
    expected = conv(4, 8) + conv(8, 8) + conv(8, 8) + conv(8, 32) + conv(16, 8) + conv(8, 32)
    expected += conv(12, 3) + 6 * (2 * 8 + 4 * 16 + 16)  # Norms; scale and shift from z.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == expected


def test_u_net_hears_z_and_the_condition():
    config = hole_config()
    decoder, batch = shaken(jit_states(KEY, config)).decoder, batch_of(config)
    z = jnp.zeros((4, 4))
    guess = decode(decoder, z, batch.condition)
    hidden = ~np.asarray(observed_of(batch.condition))[..., 0]
    assert np.all(decode(decoder, z + 1.0, batch.condition)[hidden] != guess[hidden])
    swapped = decode(decoder, z, batch.condition.at[:, 0].multiply(-1.0))
    assert np.mean(swapped[hidden] != guess[hidden]) > 0.5


def test_with_the_condition_withheld_the_models_are_the_unconditional_ones():
    """The same parameters but for what the first layers read."""
    config = hole_config()
    config.network.decoder = (('map', 8), ('up', 8, 3), ('up', 8, 3))
    without = dataclasses.replace(config, condition=ConditionConfig())
    conditional, plain = (
        jax.eval_shape(lambda key, config=each: create_states(key, config), KEY)
        for each in (config, without)
    )
    others = {}
    for name in MODELS:
        pairs = zip(
            *(jax.tree.leaves(getattr(each, name).params) for each in (conditional, plain)),
            strict=True,
        )
        others[name] = [(ours.shape, other.shape) for ours, other in pairs if ours != other]
    assert others == {
        'energy': [((3, 3, 7, 8), (3, 3, 3, 8))],
        'encoder': [((3, 3, 7, 8), (3, 3, 3, 8))],
        'decoder': [((4 + 8 * 8 * 4, 32), (4, 32))],
    }


def moved(old, new):
    changed = lambda a, b: any(
        map(np.any, jax.tree.leaves(jax.tree.map(np.subtract, a.params, b.params)))
    )
    return [name for name in MODELS if changed(getattr(old, name), getattr(new, name))]


@pytest.mark.parametrize('num_chains', [0, 8])
def test_the_same_step_trains_conditional_models(num_chains):
    config = hole_config(
        num_chains=num_chains, vae=VAEConfig(truth_weight=0.5, guess_weight=2.0, learning_rate=1e-2)
    )
    states, batch = shaken(jit_states(KEY, config)), batch_of(config)
    after, metrics = jax.jit(train_step, static_argnames='config')(KEY, states, batch, config)
    assert moved(states, after) == list(MODELS)
    assert all(map(np.isfinite, metrics.values())), metrics


def test_the_vae_step_learns_from_the_data_and_leaves_the_energy():
    config = hole_config(vae=VAEConfig(guess_weight=1.0, learning_rate=1e-2))
    states, batch = shaken(jit_states(KEY, config)), batch_of(config)
    step = jax.jit(vae_step, static_argnames='config')
    after, metrics = step(KEY, states, batch, config)
    assert moved(states, after) == ['encoder', 'decoder']
    steps = [int(clock.step) for clock in (after, after.energy, after.encoder, after.decoder)]
    assert steps == [1, 0, 1, 1]
    first = float(metrics['distortion'])
    for _ in range(30):
        after, metrics = step(KEY, after, batch, config)
    assert metrics['distortion'] < 0.7 * first


def test_the_truth_loss_by_its_parts():
    config = hole_config()
    states, batch = shaken(jit_states(KEY, config)), batch_of(config)
    keys = jax.random.split(KEY, 4)
    models = states.encoder, states.decoder

    def loss(**weights):
        return truth_loss(
            keys, batch, dataclasses.replace(config, vae=VAEConfig(**weights)), *models
        )

    assert loss() == 0.0
    truth, guess = loss(truth_weight=1.0), loss(guess_weight=1.0)
    np.testing.assert_allclose(
        loss(truth_weight=2.0, guess_weight=3.0), 2 * truth + 3 * guess, 1e-5
    )
    folded = [jax.vmap(jax.random.fold_in, (0, None))(keys, part) for part in range(3)]
    bound, _ = vae_loss(*folded[:2], *models, *vars(batch).values(), config)
    np.testing.assert_allclose(truth, bound, rtol=1e-5)
    z = jax.vmap(lambda key: jax.random.normal(key, (4,)))(folded[2])
    errors = np.sum((np.asarray(decode(states.decoder, z, batch.condition)) - batch.image) ** 2)
    np.testing.assert_allclose(guess, errors / 4, rtol=1e-5)


def test_the_error_of_the_mean_does_not_grow_with_the_variance():
    """Of g(z) = b + a z against x: |x - b|², and no slope along a. 20,000 images."""
    apply_fn = lambda variables, z, condition: (
        variables['params']['b'] + variables['params']['a'] * z.reshape(-1, 2, 2, 1)
    )
    b, a, x = (np.random.default_rng(seed).normal(size=(1, 2, 2, 1)) for seed in range(3))
    params = {'a': jnp.asarray(a), 'b': jnp.asarray(b)}
    decoder = TrainState.create(apply_fn=apply_fn, params=params, tx=optax.sgd(1.0))
    keys, images = (
        jax.random.split(KEY, 20_000),
        jnp.broadcast_to(jnp.asarray(x), (20_000, 2, 2, 1)),
    )

    def loss(params):
        state = decoder.replace(params=params)
        return mean_error(keys, images, None, Config(latent_dim=4), state)

    value, slopes = jax.value_and_grad(loss)(decoder.params)
    np.testing.assert_allclose(value, np.sum((x - b) ** 2), rtol=0.02)
    np.testing.assert_allclose(slopes['b'], 2 * (b - x), atol=0.05)
    np.testing.assert_allclose(slopes['a'], 0.0, atol=0.05)
