"""What samplers are given in someone else's loop: compiled once, refused in words, never stale."""

import dataclasses
import functools
import gc
import re
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import (
    Gaussian,
    annealed_importance_sampling,
    bracket_log_z,
    create_states,
    gaussian_of,
    generate,
    langevin_sample,
    mala_sample,
    recover,
    tune,
)
from vaebm_jax.config import ConditionConfig
from vaebm_jax.samplers.ais import Schedule
from vaebm_jax.samplers.mala import acceptance
from vaebm_jax.samplers.programs import _NUM_CACHED, _compile

KEY = jax.random.key(0)
X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
BASE = Gaussian(jnp.zeros(3), 1.0)
SCHEDULE = Schedule(jnp.linspace(0.0, 1.0, 4), jnp.full(4, 0.3))


def quadratic(x):
    return jnp.sum(jnp.square(x), axis=1)


def langevin(energy_fn, key=KEY, x=X, num_steps=3, step_size=0.1, **settings):
    settings |= dict(num_steps=num_steps, step_size=step_size)
    return langevin_sample(key, energy_fn, x, **settings)[0]


def mala(energy_fn, key=KEY, x=X, num_steps=3, step_size=0.1):
    return mala_sample(key, energy_fn, x, num_steps=num_steps, step_size=step_size)[0]


def accepted(energy_fn, key=KEY, x=X, step_size=0.1):
    return acceptance(key, energy_fn, x, step_size=step_size)


def anneal(energy_fn, key=KEY, x=X, base=BASE, schedule=SCHEDULE, num_moves=1):
    result = annealed_importance_sampling(key, energy_fn, base, schedule, x, num_moves=num_moves)
    return result.log_weights


def tuned(energy_fn, key=KEY, base=BASE, num_temperatures=10):
    return tune(key, energy_fn, base, num_temperatures=num_temperatures).step_sizes


def bracket(energy_fn, key=KEY, samples=None, num_chains=4, num_temperatures=3, **settings):
    settings |= dict(num_chains=num_chains, num_temperatures=num_temperatures)
    return bracket_log_z(key, energy_fn, BASE, samples, **settings).lower


def num_compiled(call):
    """How many programs XLA compiles by a call."""
    names = []
    listener = lambda name, *_, **__: names.append(name)
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.block_until_ready(call())
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    return sum('backend_compile' in name for name in names)


@pytest.mark.parametrize('sample', [langevin, mala, anneal, tuned, bracket])
def test_functions_that_compute_the_same_are_compiled_once(sample):
    """The same one again, and a new one with other arrays in its closure."""
    of = lambda scale: lambda x: jax.nn.softplus(scale * quadratic(x))
    first, second = jnp.float32(1.0), jnp.float32(2.0)
    energy = of(first)
    before = sample(energy)
    assert num_compiled(lambda: sample(of(jnp.float32(3.0)))) == 0
    assert num_compiled(lambda: sample(energy)) == 0
    np.testing.assert_array_equal(sample(energy), before)
    other = sample(of(second))
    assert num_compiled(lambda: sample(of(second))) == 0
    assert np.any(np.asarray(other) != np.asarray(before))


def test_settings_that_are_numbers_are_not_compiled_for():
    langevin(quadratic)
    for settings in (dict(step_size=0.2), dict(noise_scale=0.5), dict(first_step=3)):
        assert num_compiled(lambda settings=settings: langevin(quadratic, **settings)) == 0
    assert num_compiled(lambda: langevin(quadratic, num_steps=4)) > 0


@pytest.mark.parametrize('sample', [langevin, mala, anneal])
def test_compiled_as_in_ones_own_jit(sample):
    energy = lambda x: jnp.sum(jax.nn.relu(x) + 0.3 * x**2, axis=1)
    within = jax.jit(lambda key: sample(energy, key=key))(KEY)
    np.testing.assert_allclose(sample(energy), within, rtol=1e-5, atol=1e-6)


class Scaled:
    """An energy with an attribute that changes, and no hash."""

    def __init__(self, scale):
        self.scale = scale

    def __eq__(self, other):
        return True

    def __call__(self, x):
        return self.scale * quadratic(x)


@pytest.mark.parametrize('scales', [(1.0, 2.0), (jnp.float32(1.0), jnp.float32(2.0))])
@pytest.mark.parametrize('sample', [langevin, mala, anneal, tuned])
def test_an_energy_that_has_changed_is_not_served_by_its_old_program(sample, scales):
    scale = scales[0]
    energy, by_attribute = lambda x: scale * quadratic(x), Scaled(scales[0])
    before = sample(energy)
    np.testing.assert_array_equal(sample(by_attribute), before)
    scale = by_attribute.scale = scales[1]
    truth = sample(lambda x: scales[1] * quadratic(x))
    assert np.any(np.asarray(truth) != np.asarray(before))
    for changed in (energy, by_attribute, by_attribute.__call__):
        np.testing.assert_array_equal(sample(changed), truth)


def test_nor_is_one_that_differs_in_a_constant_a_sign_of_zero_or_a_rule():
    x = jnp.ones((4, 3))
    zeros = [
        langevin(lambda x, z=z: jnp.sum(x * jnp.sign(1 / (x * z)), axis=1)) for z in (0.0, -0.0)
    ]
    assert np.any(np.asarray(zeros[0]) != np.asarray(zeros[1]))

    def with_gradient(factor):
        energy = jax.custom_vjp(quadratic)
        energy.defvjp(
            lambda x: (quadratic(x), x), lambda x, change: (factor * x * change[:, jnp.newaxis],)
        )
        return energy

    moved = [langevin(with_gradient(factor), x=x, noise_scale=0.0) for factor in (1.0, 2.0)]
    for factor, end in zip((1.0, 2.0), moved, strict=True):
        np.testing.assert_allclose(end, (1.0 - 0.005 * factor) ** 3, rtol=1e-5)


def test_callables_of_all_kinds():
    weights = np.ones(3, np.float32)
    weighted = lambda weights, x: jnp.sum(weights[np.newaxis] * x**2, axis=1)
    truth = langevin(quadratic)
    for energy in (
        functools.partial(weighted, weights),
        functools.partial(weighted, jnp.ones(3)),
        jax.jit(quadratic),
        Scaled(1.0),
        Scaled(1.0).__call__,
    ):
        np.testing.assert_allclose(langevin(energy), truth, rtol=1e-6)
    energy = functools.partial(weighted, weights)
    weights[:] = 4.0
    np.testing.assert_allclose(langevin(energy), langevin(lambda x: 4.0 * quadratic(x)), rtol=1e-6)


@pytest.mark.parametrize('sample', [langevin, mala, anneal, tuned])
def test_an_energy_may_belong_to_an_outer_transformation(sample):
    of = lambda scale: sample(lambda x: scale * quadratic(x))
    scales = jnp.array([1.0, 2.0])
    alone = np.stack([of(scale) for scale in scales])
    np.testing.assert_allclose(jax.vmap(of)(scales), alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(of)(2.0), alone[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(jax.grad(lambda scale: jnp.sum(of(scale)))(2.0), 0.0)
    np.testing.assert_array_equal(of(2.0), of(2.0))  # No tracer is left behind.


def test_what_is_kept_is_bounded_and_holds_no_arrays():
    def closed_over():
        large = jnp.ones(1000)
        langevin(lambda x: quadratic(x) * jnp.sum(large))
        return weakref.ref(large)

    held = closed_over()
    gc.collect()
    assert held() is None
    for i in range(_NUM_CACHED + 3):
        langevin(lambda x, i=i: quadratic(x) * (1.0 + i), num_steps=1)
    assert _compile.cache_info().currsize == _NUM_CACHED


ENERGIES = {
    '[B, 1]': lambda x: quadratic(x)[:, jnp.newaxis],
    'one for all': lambda x: jnp.sum(x**2),
    '[B, D]': lambda x: x**2,
    'a tuple': lambda x: (quadratic(x), x),
    'none': lambda x: None,
    'whole numbers': lambda x: quadratic(x).astype(int),
    'numpy': lambda x: np.sum(np.square(np.asarray(x)), axis=1),
    'no function': 3.0,
}


@pytest.mark.parametrize('name', ENERGIES)
@pytest.mark.parametrize('sample', [langevin, mala, accepted, anneal, tuned, bracket])
@pytest.mark.parametrize('is_jitted', [False, True])
def test_an_energy_of_the_wrong_kind_is_refused_in_a_sentence(sample, name, is_jitted):
    if is_jitted and sample is bracket:
        return
    run = lambda key: sample(ENERGIES[name], key=key)
    with pytest.raises((TypeError, ValueError)) as told:
        (jax.jit(run) if is_jitted else run)(KEY)
    assert re.fullmatch('energy_fn must .*', str(told.value))


@pytest.mark.parametrize('sample', [langevin, mala, accepted, anneal])
def test_an_energy_of_one_point_is_refused_where_shapes_agree_by_chance(sample):
    square = jnp.ones((3, 3))
    with pytest.raises(ValueError, match=r'^energy_fn must .* got shape \(3,\) for \(4, 3\)'):
        sample(lambda x: x[0] ** 2, x=square)
    conditions = jnp.arange(3.0)  # An energy of just these chains.
    assert np.all(np.isfinite(sample(lambda x: conditions * quadratic(x), x=square)))


@pytest.mark.parametrize('rounded', [jnp.round, jnp.floor, jax.lax.stop_gradient])
def test_an_energy_without_a_gradient_is_refused_where_it_alone_leads(rounded):
    with pytest.raises(ValueError, match='^energy_fn must have a gradient'):
        langevin(lambda x: rounded(quadratic(x)))
    assert np.all(np.isfinite(mala(lambda x: rounded(quadratic(x)))))  # A random walk, and exact.


def test_a_constant_energy_leaves_noise_alone():
    flat = lambda x: jnp.full(len(x), 2.0)
    noise = langevin_sample(KEY, flat, jnp.zeros((20_000, 2)), num_steps=5, step_size=0.3)[0]
    assert np.var(noise) == pytest.approx(5 * 0.3**2, rel=0.05)
    box = lambda x: jnp.sum(jnp.where(jnp.abs(x) < 1.0, 0.0, jnp.inf), axis=1)
    inside = mala_sample(KEY, box, jnp.zeros((20_000, 1)), num_steps=60, step_size=0.5)[0]
    assert np.var(inside) == pytest.approx(1.0 / 3.0, rel=0.05)


NAN, INF = float('nan'), float('inf')
WRONG = {
    'num_steps': ((langevin, mala), [-1, 2.5, NAN, '3', None]),
    'step_size': (
        (langevin, mala, accepted),
        [-0.5, 0.0, NAN, INF, '0.1', None, 1j, [0.1], 2**40, 10**25],
    ),
    'noise_scale': ((langevin,), [-1.0, NAN, INF, 'x', [0.1], 2**40]),
    'max_drift': ((langevin,), [-1.0, NAN, INF, 'x', [0.1], 2**40]),
    'max_element_drift': ((langevin,), [-1.0, NAN, INF, 'x', [0.1], 2**40]),
    'first_step': ((langevin,), [-1, 0.5, 'x', [1], 2**40]),
    'moves': ((langevin,), [[True], np.ones((1, 3)), np.ones(3, bool), np.ones((2, 3), bool)]),
    'x': (
        (langevin, mala, accepted, anneal),
        [
            np.zeros((4, 3), int),
            np.zeros((4, 3), np.uint8),
            np.zeros((4, 3), np.longdouble),
            jnp.zeros((4, 3), jnp.float8_e4m3fn),
            np.ma.zeros((4, 3), np.float32),
            np.zeros((0, 3), np.float32),
            np.float32(0.0),
            np.zeros((), np.float32),
            [[0.0, 0.0, 0.0]],
            None,
        ],
    ),
    'key': (
        (langevin, mala, accepted, anneal, tuned, bracket),
        [0, None, jax.random.split(KEY, 3), np.zeros(2), jax.random.split(KEY, (4, 2))],
    ),
    'num_moves': ((anneal,), [0, -1, 1.5]),
    'num_temperatures': ((tuned, bracket), [0, -1, 1.5]),
    'num_chains': ((bracket,), [0, -1, 1.5]),
    'chains_a_call': ((bracket,), [0, 1.5]),
    'samples': (
        (bracket,),
        [
            np.zeros((2, 3), np.float32),
            np.zeros((4, 2), np.float32),
            np.zeros((4, 3), int),
            0.5,
            'x',
        ],
    ),
    'base': (
        (anneal, tuned),
        [
            None,
            (jnp.zeros(3), 1.0),
            Gaussian(jnp.zeros(3), -1.0),
            Gaussian(jnp.zeros(3), jnp.ones(2)),
            Gaussian(jnp.zeros(3), [1.0, 1.0, 1.0]),
            Gaussian(jnp.zeros(3, int), 1.0),
            Gaussian([0.0, 0.0, 0.0], 1.0),
            Gaussian(jnp.full(3, NAN), 1.0),
        ],
    ),
    'schedule': (
        (anneal,),
        [
            Schedule(jnp.linspace(0.0, 1.0, 4), jnp.full(3, 0.3)),
            Schedule(jnp.linspace(0.0, 1.5, 4), jnp.full(4, 0.3)),
            Schedule(jnp.linspace(0.0, 1.0, 4), jnp.full(4, -0.3)),
            Schedule(jnp.zeros(1), jnp.ones(1)),
            Schedule(None, None),
            None,
            0.5,
            jnp.zeros((3, 4)),
        ],
    ),
}


@pytest.mark.parametrize(
    'sample, name, value',
    [
        (sample, name, value)
        for name in WRONG
        for sample in WRONG[name][0]
        for value in WRONG[name][1]
    ],
)
def test_a_wrong_argument_is_named_in_a_sentence(sample, name, value):
    with pytest.raises((TypeError, ValueError)) as told:
        sample(quadratic, **{name: value})
    assert re.fullmatch(rf'(.* of )?{name} must .*, got .*', str(told.value))


def test_a_traced_number_of_steps_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match='num_steps must be a whole number, got a traced value'):
        jax.jit(lambda num_steps: langevin(quadratic, num_steps=num_steps))(3)
    assert langevin(quadratic, num_steps=np.int64(3)).shape == X.shape


def test_a_base_of_another_shape_than_the_points_is_refused():
    with pytest.raises(ValueError, match=r'base must have a mean of shape \(3,\), got \(2,\)'):
        anneal(quadratic, base=Gaussian(jnp.zeros(2), 1.0))


def test_energies_of_fewer_bits_than_the_points_are_annealed():
    rounded = lambda x: quadratic(x).astype(jnp.bfloat16)
    np.testing.assert_allclose(anneal(rounded), anneal(quadratic), rtol=0.05)


@pytest.mark.parametrize('x', [[[0.0]], None, 1.0, np.zeros((0, 3), np.float32), np.zeros(3, int)])
def test_points_that_have_no_gaussian_are_refused(x):
    with pytest.raises((TypeError, ValueError), match='^x must .*, got '):
        gaussian_of(x)


@pytest.mark.parametrize('num_chains', [0, -1, 1.5, None])
def test_a_number_of_draws_of_a_gaussian(num_chains):
    with pytest.raises((TypeError, ValueError), match='^num_chains must .*, got '):
        BASE.sample(KEY, num_chains)


@pytest.mark.parametrize('key', [0, None, jax.random.split(KEY, 3), np.zeros(2)])
def test_models_are_created_and_drawn_from_with_one_key(tiny_config, key):
    states = create_states(KEY, tiny_config)
    for run in (
        lambda: create_states(key, tiny_config),
        lambda: generate(key, states, tiny_config, 1),
        lambda: recover(key, states, tiny_config, jnp.zeros((1, 8, 8, 2)), 1),
    ):
        with pytest.raises((TypeError, ValueError), match='^key must .*, got '):
            run()


def test_what_models_are_drawn_with_is_refused_in_a_sentence(tiny_config):
    states = create_states(KEY, tiny_config)
    conditional = dataclasses.replace(tiny_config, condition=ConditionConfig('center_hole'))
    for number in (0, -1, 1.5, None, 'x'):
        with pytest.raises((TypeError, ValueError), match='^num_samples must .*, got '):
            generate(KEY, states, tiny_config, number)
        with pytest.raises((TypeError, ValueError), match='^num_recoveries must .*, got '):
            recover(KEY, states, conditional, jnp.zeros((1, 8, 8, 2)), number)
    for condition in (None, jnp.zeros((1, 8, 8, 1)), jnp.zeros((0, 8, 8, 2)), jnp.zeros((8, 8, 2))):
        with pytest.raises((TypeError, ValueError), match='^condition must .*, got '):
            recover(KEY, states, conditional, condition, 1)
    with pytest.raises(ValueError, match='^recover needs models with a condition .*, got .* none$'):
        recover(KEY, states, tiny_config, jnp.zeros((1, 8, 8, 2)), 1)
    with pytest.raises(
        ValueError, match='^generate needs models without a .*, got .* center_hole$'
    ):
        generate(KEY, states, conditional, 1)
