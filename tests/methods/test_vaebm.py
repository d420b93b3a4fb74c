"""One training iteration: against numpy where the models allow it, and for what it must leave."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vaebm_jax import Batch, States, create_states, train_step
from vaebm_jax.config import Config, EnergyConfig, LangevinConfig, ScheduleConfig, VAEConfig
from vaebm_jax.methods.devices import chain_condition
from vaebm_jax.methods.parts import update_energy
from vaebm_jax.methods.vae import vae_step
from vaebm_jax.models.create import learning_rate
from vaebm_jax.models.states import TrainState
from vaebm_jax.models.vae import sample_prior
from vaebm_jax.samplers.keys import branch

KEY = jax.random.key(0)
MODELS = ('energy', 'encoder', 'decoder')
jit_states = jax.jit(create_states, static_argnames='config')
jit_step = jax.jit(train_step, static_argnames='config')
descent = optax.inject_hyperparams(optax.sgd)(learning_rate=1.0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def images(num_images, seed=0):
    return jnp.asarray(np.tanh(normal(num_images, 8, 8, 1, seed=seed)))


def descending(states, **rates):
    """Plain descent in place of Adam: at rate 1 the difference of parameters is the gradient."""

    def swap(name):
        state = getattr(states, name)
        opt_state = descent.init(state.params)
        opt_state.hyperparams['learning_rate'] = jnp.asarray(rates.get(name, 1.0))
        return state.replace(tx=descent, opt_state=opt_state)

    return States(*map(swap, MODELS))


def lost(old, new):
    """What a model's parameters lost: the gradient, where it was `descending`."""
    return jax.tree.map(lambda old, new: np.subtract(old, new), old.params, new.params)


def moved(old, new):
    """Which models moved in every kernel, and which in no parameter at all."""
    leaves = {
        name: jax.tree.leaves(lost(getattr(old, name), getattr(new, name))) for name in MODELS
    }
    # No bias of the energy's last layer is asked to move: it changes no difference of energies.
    kernels = {name: [leaf for leaf in leaves[name] if leaf.ndim > 1] for name in MODELS}
    changed = [name for name in MODELS if all(map(np.any, kernels[name]))]
    return changed, [name for name in MODELS if not any(map(np.any, leaves[name]))]


def assert_close(tree, right, rtol=1e-4):
    """To a share of the whole tree's norm."""
    chex.assert_trees_all_close(tree, right, rtol=rtol, atol=rtol * float(optax.tree.norm(right)))


# A step whose every number can be written out: with f(x) = -theta x²/2 a pixel, the chain is
# linear, and with g(z) = alpha z, mean = beta x (after dropout) and a constant log_std, so is the
# VAE.


def diagonal_energy(variables, x, condition):
    return -0.5 * jnp.sum(variables['params']['theta'] * (x**2).reshape(len(x), -1), axis=1)


def diagonal_encoder(variables, x, condition, dropout_keys):
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.7, (4,)))(dropout_keys)
    mean = variables['params']['beta'] * keep * x.reshape(len(x), -1)
    return mean, jnp.broadcast_to(variables['params']['log_std'], mean.shape)


def diagonal_decoder(variables, z, condition):
    return (variables['params']['alpha'] * z).reshape(-1, 2, 2, 1)


def diagonal_states(theta, beta, log_std, alpha):
    def create(apply_fn, **params):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], params)
        return TrainState.create(apply_fn=apply_fn, params=params, tx=descent, ema_params=params)

    return States(
        create(diagonal_energy, theta=theta),
        create(diagonal_encoder, beta=beta, log_std=log_std),
        create(diagonal_decoder, alpha=alpha),
    )


def numpy_step(key, step, data, theta, beta, log_std, alpha, config):
    """The gradients and metrics of the poster's algorithm, and of what may be added to it."""
    keys = jax.random.split(jax.random.fold_in(key, step), 5)
    chains = range(config.num_chains)
    draw = lambda key, i: np.asarray(jax.random.normal(jax.random.fold_in(key, i), (4,)))
    z = known_z = np.stack([draw(keys[0], i) for i in chains])
    posterior_noise = np.stack([draw(keys[2], i) for i in chains])
    keep = [jax.random.bernoulli(jax.random.fold_in(keys[3], i), 0.7, (4,)) for i in chains]
    assert 0.0 < np.mean(keep) < 1.0

    delta, w = config.langevin.step_size, config.vae.kl_weight
    reference = config.energy.reference_std
    precision = (reference and reference**-2) + config.energy.scale * theta
    energy = lambda x: 0.5 * np.sum(precision * x**2, axis=1)
    x = guess = alpha * z
    norms = []
    for t in range(config.langevin.num_steps):
        norms.append(np.linalg.norm(precision * x, axis=1).mean())
        noise = np.stack([draw(jax.random.fold_in(keys[1], i), t) for i in chains])
        x = x - 0.5 * delta**2 * precision * x + delta * noise

    std = np.exp(log_std)
    seen = np.array(keep) * x
    mean, z = beta * seen, beta * seen + std * posterior_noise
    error, known_error = x - alpha * z, x - alpha * known_z
    bound, known = config.vae.bound_weight, config.vae.known_z_weight
    data_key = branch(jax.random.fold_in(key, step), 'data noise')
    noise = np.stack([draw(data_key, i) for i in range(len(data))])
    noisy = data + config.energy.data_noise * noise
    start_std = config.energy.start_noise * (1.0 - step / config.energy.start_noise_steps)

    def disguise(name, images):
        start_key = branch(jax.random.fold_in(key, step), name)
        draws = [draw(jax.random.fold_in(start_key, i), 0) for i in range(len(images))]
        return images + start_std * np.stack(draws)

    noisy, shown = disguise('energy data', noisy), disguise('energy samples', x)
    pull = lambda x: 2.0 * config.energy.l2 / config.energy.scale * energy(x)[:, None]
    theta_slope = ((1.0 + pull(noisy)) * noisy**2).mean(axis=0)
    theta_slope -= ((1.0 - pull(shown)) * shown**2).mean(axis=0)
    z_slope = -2.0 * alpha * error
    gradients = {
        'theta': 0.5 * config.energy.scale * theta_slope,
        'beta': bound * (z_slope * seen + w * beta * seen**2).mean(axis=0),
        'log_std': bound * (z_slope * std * posterior_noise + w * (std**2 - 1.0)).mean(axis=0),
        'alpha': -2.0 * (bound * error * z + known * known_error * known_z).mean(axis=0),
    }
    norm = lambda *names: np.linalg.norm(np.concatenate([gradients[name] for name in names]))
    metrics = {
        'energy_data': energy(noisy).mean(),
        'energy_samples': energy(shown).mean(),
        'rate': 0.5 * np.sum(mean**2 + std**2 - 1.0 - 2.0 * log_std, axis=1).mean(),
        'distortion': np.sum(error**2, axis=1).mean(),
        'grad_norm/energy': norm('theta'),
        'grad_norm/encoder': norm('beta', 'log_std'),
        'grad_norm/decoder': norm('alpha'),
        'langevin/grad_norm_first': norms[0],
        'langevin/grad_norm_last': norms[-1],
        'langevin/motion': np.sqrt(np.mean((x - guess) ** 2)),
        'spread': np.sqrt(x.var(axis=0).mean() / data.var(axis=0).mean()),
        'langevin/overshoot': np.mean(np.abs(x) > 1.1),
        'spread_ancestral': np.sqrt(guess.var(axis=0).mean() / data.var(axis=0).mean()),
    }
    if not start_std:
        metrics['langevin/energy_drop'] = energy(guess).mean() - energy(x).mean()
    return gradients, metrics


@pytest.mark.parametrize(
    'step, taught, disguised', [(0, False, 0), (5, False, 0), (5, True, 0), (5, True, 1)]
)
def test_the_whole_step_against_numpy(step, taught, disguised):
    config = Config(
        batch_size=4,
        num_chains=6,
        latent_dim=4,
        ema_decay=0.3,
        langevin=LangevinConfig(num_steps=3, step_size=0.4),
        energy=EnergyConfig(reference_std=0.8, scale=1.5),
        vae=VAEConfig(kl_weight=0.7),
    )
    if taught:
        config = dataclasses.replace(
            config,
            energy=EnergyConfig(
                reference_std=0.0,
                scale=1.5,
                l2=0.3,
                data_noise=0.6,
                start_noise=0.7 * disguised,
                start_noise_steps=20,
            ),
            vae=VAEConfig(kl_weight=0.7, bound_weight=0.4, known_z_weight=1.7),
        )
    theta, beta, log_std, alpha = 0.5 * normal(4, 4)
    data = normal(4, 4, seed=1)
    states = diagonal_states(theta, beta, log_std, alpha)
    energy = states.energy.replace(step=jnp.array(step))
    states = states.replace(energy=energy, step=jnp.array(step))
    after, metrics = jit_step(KEY, states, Batch(jnp.asarray(data.reshape(4, 2, 2, 1))), config)

    gradients, right = numpy_step(KEY, step, data, theta, beta, log_std, alpha, config)
    assert metrics.keys() == right.keys()
    for name in right:
        assert metrics[name].shape == ()
        np.testing.assert_allclose(metrics[name], right[name], rtol=1e-4, err_msg=name)
    for name in MODELS:
        for parameter, gradient in lost(getattr(states, name), getattr(after, name)).items():
            assert_close(gradient[0], gradients[parameter])
    decay = min(0.3, (1 + step) / (10 + step))
    assert_close(after.energy.ema_params['theta'][0], theta - (1 - decay) * gradients['theta'])


def test_augmentation_is_of_what_the_energy_learns_from_alone(tiny_config):
    energy = dataclasses.replace(tiny_config.energy, augment=('shift', 'cutout'))
    augmented = dataclasses.replace(tiny_config, energy=energy)
    states, batch = jit_states(KEY, tiny_config), Batch(images(tiny_config.batch_size))
    plain, augmented = (jit_step(KEY, states, batch, c)[0] for c in (tiny_config, augmented))
    for name in ('encoder', 'decoder'):
        chex.assert_trees_all_equal(getattr(plain, name).params, getattr(augmented, name).params)
    assert moved(plain, augmented) == (['energy'], ['encoder', 'decoder'])


@pytest.mark.parametrize('energy_steps', [0, 4])
def test_rates_fall_to_their_ends(tiny_config, energy_steps):
    """With a gradient of 1 each update of Adam is the rate: a line from its peak to 5 %."""
    schedule = ScheduleConfig(decay_share=1.0, energy_steps=energy_steps)
    tiny_config = dataclasses.replace(tiny_config, num_steps=10, schedule=schedule)
    states = jit_states(KEY, tiny_config)
    for name, num_steps, peak in (
        ('energy', energy_steps or 10, tiny_config.energy.learning_rate),
        ('encoder', 10, tiny_config.vae.learning_rate),
        ('decoder', 10, tiny_config.vae.learning_rate),
    ):
        tx, params = getattr(states, name).tx, {'weight': jnp.zeros(())}
        state, rates = tx.init(params), []
        for _ in range(12):
            updates, state = tx.update({'weight': jnp.ones(())}, state, params)
            rates.append(-float(updates['weight']) / peak)
        expected = 1.0 - 0.95 * np.minimum(np.arange(12) / num_steps, 1.0)
        np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_rates_rise_to_their_peaks():
    schedule = ScheduleConfig(name='linear', decay_share=0.5, final_share=0.0, rise_steps=4)
    rates = [float(learning_rate(2.0, schedule, 20)(step)) for step in (0, 1, 3, 4, 10, 15, 20)]
    np.testing.assert_allclose(rates, [0.5, 1.0, 2.0, 2.0, 2.0, 1.0, 0.0], rtol=1e-6)


def test_a_longer_gradient_is_shortened(tiny_config):
    """The energy's in units of its scale: two runs whose scales differ take the same steps."""
    by_scale = []
    for scale in (1e2, 1e5):
        energy = EnergyConfig(reference_std=0.0, scale=scale, max_grad_norm=1e-3)
        config = dataclasses.replace(tiny_config, energy=energy)
        state = jit_states(KEY, config).energy
        gradient = jax.tree.map(lambda leaf, scale=scale: jnp.full_like(leaf, scale), state.params)
        (_, (moments, _)), size = state.advance(gradient, 0.0).opt_state, optax.tree.norm
        by_scale.append(size(moments.mu) / scale)
    np.testing.assert_allclose(by_scale, 0.5 * 1e-3, rtol=1e-4)


def test_without_the_bound_the_encoder_learns_from_the_data_alone(tiny_config):
    taught = lambda **weights: dataclasses.replace(tiny_config, vae=VAEConfig(**weights))
    states, batch = descending(jit_states(KEY, tiny_config)), Batch(images(8))
    after, metrics = jit_step(KEY, states, batch, taught(bound_weight=0.0, known_z_weight=1.0))
    assert moved(states, after) == (['energy', 'decoder'], ['encoder'])
    assert metrics['rate'] > 0 and metrics['grad_norm/encoder'] == 0.0
    after, _ = jit_step(KEY, states, batch, taught(bound_weight=0.0, truth_weight=0.5))
    other, _ = jit_step(KEY, states, batch, taught(bound_weight=0.0, truth_weight=1.0))
    twice = jax.tree.map(lambda leaf: 2.0 * leaf, lost(states.encoder, after.encoder))
    assert_close(lost(states.encoder, other.encoder), twice)


def test_all_three_move_and_advance(tiny_config):
    states = jit_states(KEY, tiny_config)
    after, metrics = jit_step(KEY, states, Batch(images(8)), tiny_config)
    assert moved(states, after) == (list(MODELS), [])
    assert [int(getattr(after, name).step) for name in MODELS] == [1, 1, 1]
    assert all(map(np.isfinite, metrics.values())), metrics


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_types_stay(tiny_config, dtype):
    tiny_config.dtype = dtype
    states = jax.eval_shape(lambda key: create_states(key, tiny_config), KEY)
    step = lambda states: train_step(KEY, states, Batch(images(8)), tiny_config)
    after, metrics = jax.eval_shape(step, states)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, states)
    for name in MODELS:
        state = getattr(after, name)
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype('float32')}
    assert {(value.shape, str(value.dtype)) for value in metrics.values()} == {((), 'float32')}


@pytest.mark.parametrize('name', MODELS)
def test_an_update_moves_only_its_own_parameters(tiny_config, name):
    """Where only its rate is not 0; and it moves as it does when the others move too."""
    states, batch = jit_states(KEY, tiny_config), Batch(images(8))
    together = descending(states)
    alone = descending(states, **dict.fromkeys(MODELS, 0.0) | {name: 1.0})
    after, _ = jit_step(KEY, alone, batch, tiny_config)
    assert moved(alone, after) == ([name], [other for other in MODELS if other != name])
    all_after, _ = jit_step(KEY, together, batch, tiny_config)
    assert_close(getattr(after, name).params, getattr(all_after, name).params, rtol=1e-6)


def test_energy_gradient_is_that_of_the_mean_difference(tiny_config):
    """By the formula, for 8 images against 6 samples."""
    states = descending(jit_states(KEY, tiny_config))
    data, samples = images(8), images(6, seed=1)
    apply_fn, std = states.energy.apply_fn, tiny_config.energy.reference_std

    def mean_energy(params, x):
        f = apply_fn({'params': params}, x)
        return jnp.mean(0.5 * jnp.sum(x**2, axis=(1, 2, 3)) - f) / std**2

    loss = lambda params: mean_energy(params, data) - mean_energy(params, samples)
    expected = jax.grad(loss)(states.energy.params)
    after, metrics = jax.jit(update_energy, static_argnames='config')(
        states.energy, Batch(data), Batch(samples), config=tiny_config
    )
    assert_close(lost(states.energy, after), expected)
    np.testing.assert_allclose(metrics['grad_norm/energy'], optax.tree.norm(expected), rtol=1e-4)


@pytest.mark.parametrize('ema_decay', [0.0, 0.2])
def test_moving_average(ema_decay):
    """Decay min(ema_decay, (1 + n) / (10 + n)): 1/10, 2/11 and from n = 2 on the 0.2 asked for."""
    params = {'w': jnp.array([1.0, -2.0])}
    state = TrainState.create(apply_fn=None, params=params, tx=optax.sgd(0.5), ema_params=params)
    average = weights = np.array([1.0, -2.0])
    for n in range(5):
        state = state.advance({'w': jnp.array([1.0, n])}, ema_decay)
        weights = weights - 0.5 * np.array([1.0, n])
        decay = min(ema_decay, (1 + n) / (10 + n))
        average = decay * average + (1.0 - decay) * weights
        np.testing.assert_allclose(state.params['w'], weights, rtol=1e-6)
        np.testing.assert_allclose(state.ema_params['w'], average, rtol=1e-6)


def test_an_average_forgets_noise_by_the_models_own_updates(tiny_config):
    """After a warm start the energy's average is that of an energy that learns from the start."""
    config = dataclasses.replace(tiny_config, ema_decay=0.99)
    warm_start = jax.jit(vae_step, static_argnames='config')
    states, batch = jit_states(KEY, config), Batch(images(8))
    for _ in range(12):
        states, _ = warm_start(KEY, states, batch, config)
    average = states.energy.params
    for n in range(3):
        states, _ = jit_step(KEY, states, batch, config)
        decay = (1 + n) / (10 + n)
        follow = lambda old, new, decay=decay: decay * old + (1.0 - decay) * new
        average = jax.tree.map(follow, average, states.energy.params)
        assert_close(states.energy.ema_params, average)
        steps = [int(clock.step) for clock in (states, states.encoder, states.energy)]
        assert steps == [13 + n, 13 + n, 1 + n]


def test_the_average_of_a_trained_model_is_kept():
    params, average = {'w': jnp.array([1.0, -2.0])}, {'w': jnp.array([3.0, 4.0])}
    state = TrainState.create(
        apply_fn=None, params=params, tx=optax.adam(0.1), ema_params=average, was_trained=True
    ).advance({'w': jnp.ones(2)}, 0.99)
    expected = 0.99 * average['w'] + 0.01 * state.params['w']
    np.testing.assert_allclose(state.ema_params['w'], expected, rtol=1e-6)


def test_chain_i_sees_image_i_over_k():
    condition = jnp.arange(3.0).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(chain_condition(condition, 6).ravel(), [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(chain_condition(condition, 3), condition)
    assert chain_condition(None, 6) is None


def test_step_with_a_condition(tiny_config):
    """Energies by hand: of data beside its condition, of chain i beside condition i // 2."""
    tiny_config.num_chains = 16
    tiny_config.langevin.noise_scale = 0.0
    condition = jnp.asarray(normal(8, 8, 8, 2, seed=3))
    states = jit_states(KEY, tiny_config, condition[:1])
    # Its last layer begins at 0, and then the other layers have no gradient.
    params = jax.tree.map(lambda leaf: leaf + 0.02, states.decoder.params)
    states = states.replace(decoder=states.decoder.replace(params=params))
    after, metrics = jit_step(KEY, states, Batch(images(8), condition), tiny_config)
    assert moved(states, after) == (list(MODELS), [])

    def energy(x, condition):
        f = states.energy.apply_fn({'params': states.energy.params}, x, condition)
        return (0.5 * jnp.sum(x**2, axis=(1, 2, 3)) - f) / tiny_config.energy.reference_std**2

    @jax.jit
    def mean_energies():
        z = sample_prior(jax.random.split(jax.random.fold_in(KEY, 0), 5)[0], 16, 4)
        seen = jnp.stack([condition[i // 2] for i in range(16)])
        x = states.decoder.apply_fn({'params': states.decoder.params}, z, seen)
        for _ in range(3):
            slope = jax.grad(lambda x: jnp.sum(energy(x, seen)))(x)
            slope = jnp.where(seen[..., 1:] > 0.5, 0.0, slope)
            x = x - 0.5 * tiny_config.langevin.step_size**2 * slope
        return jnp.mean(energy(images(8), condition)), jnp.mean(energy(x, seen))

    result = metrics['energy_data'], metrics['energy_samples']
    np.testing.assert_allclose(result, mean_energies(), rtol=1e-4)


def test_chains_that_no_image_fits_are_refused(tiny_config):
    tiny_config.num_chains = 12
    batch = Batch(images(8), images(8))
    states = jax.eval_shape(lambda key: create_states(key, tiny_config, images(1)), KEY)
    with pytest.raises(ValueError, match='multiple of batch_size: got 12 chains for 8 images'):
        jax.eval_shape(lambda states: train_step(KEY, states, batch, tiny_config), states)


def test_traced_once_over_three_steps(tiny_config):
    step = jax.jit(chex.assert_max_traces(train_step, n=1), static_argnames='config')
    states = create_states(KEY, tiny_config)  # as a user has them, not from a compiled call
    # A Python number among them would compile a second time.
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(states))
    for n in range(3):
        states, _ = step(KEY, states, Batch(images(8, seed=n)), tiny_config)
    assert int(states.step) == int(states.energy.step) == 3


def test_draws_follow_key_and_step(tiny_config):
    states, batch = jit_states(KEY, tiny_config), Batch(images(8))
    first = jit_step(KEY, states, batch, tiny_config)
    chex.assert_trees_all_equal(first, jit_step(KEY, states, batch, tiny_config))
    later = states.replace(step=jnp.array(1, jnp.int32))
    for key, start in ((KEY, later), (jax.random.key(1), states)):
        _, metrics = jit_step(key, start, batch, tiny_config)
        assert metrics['energy_data'] == first[1]['energy_data']
        assert metrics['energy_samples'] != first[1]['energy_samples']
        assert metrics['rate'] != first[1]['rate']


def test_memory_does_not_grow_with_the_chain(tiny_config):
    tiny_config.data.image_size, tiny_config.data.num_channels = 32, 3

    def temporary_bytes(num_steps):
        langevin = dataclasses.replace(tiny_config.langevin, num_steps=num_steps)
        config = dataclasses.replace(tiny_config, langevin=langevin)
        states = jax.eval_shape(lambda key: create_states(key, config), KEY)
        batch = Batch(jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.float32))
        compiled = jit_step.lower(KEY, states, batch, config).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    short, long = temporary_bytes(5), temporary_bytes(40)
    # Kept for a gradient, 35 more steps would take 7 MB.
    assert short > 0 and abs(long - short) < 0.05 * short, (short, long)
