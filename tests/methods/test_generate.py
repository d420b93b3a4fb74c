"""Samples of a model: what they depend on, and the energy beside them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import create_states, energy_fn, generate
from vaebm_jax.methods import generate as sampling
from vaebm_jax.methods.chains import ancestral_langevin_sample
from vaebm_jax.models.apply import decode
from vaebm_jax.samplers.keys import branch

KEY = jax.random.key(0)
jit_states = jax.jit(create_states, static_argnames='config')


@pytest.fixture
def states(tiny_config):
    """Averages that differ from the parameters, as after some training."""
    shifted = lambda state: state.replace(
        ema_params=jax.tree.map(lambda leaf: 1.5 * leaf, state.params)
    )
    states = jit_states(KEY, tiny_config)
    return states.replace(energy=shifted(states.energy), decoder=shifted(states.decoder))


@pytest.mark.parametrize('ema', [True, False])
def test_energy_fn_against_the_formula(tiny_config, states, ema):
    x = jnp.asarray(np.random.default_rng(0).uniform(-1.0, 1.0, (5, 8, 8, 1)), jnp.float32)
    params = states.energy.ema_params if ema else states.energy.params
    f = states.energy.apply_fn({'params': params}, x)
    expected = (0.5 * np.sum(np.square(x), axis=(1, 2, 3)) - np.asarray(f)) / 0.016**2
    np.testing.assert_allclose(energy_fn(states, tiny_config, ema=ema)(x), expected, rtol=1e-5)
    assert tiny_config.energy.reference_std == 0.016


def test_energy_fn_takes_the_averages_unless_told(tiny_config, states):
    x = jnp.ones((2, 8, 8, 1))
    energies = [energy_fn(states, tiny_config, ema=ema)(x) for ema in (True, False)]
    np.testing.assert_array_equal(energy_fn(states, tiny_config)(x), energies[0])
    assert jnp.all(energies[0] != energies[1])


@pytest.mark.parametrize('ema', [True, False])
def test_generate_is_ancestral_langevin_sampling(tiny_config, states, ema):
    """The draws of its two keys, with the averages or the parameters."""
    if ema:
        pick = lambda state: state.replace(params=state.ema_params)
        drawn_with = states.replace(energy=pick(states.energy), decoder=pick(states.decoder))
    else:
        drawn_with = states
    sample = jax.jit(ancestral_langevin_sample, static_argnums=(3, 4))
    keys = jax.random.split(branch(KEY, 'generate'))
    expected = sample(*keys, drawn_with, tiny_config, 3)[:2]
    for result, right in zip(generate(KEY, states, tiny_config, 3, ema=ema), expected, strict=True):
        assert result.shape == (3, 8, 8, 1) and result.dtype == jnp.float32
        np.testing.assert_allclose(result, right, atol=1e-5)
    assert jnp.all(jnp.abs(expected[0]) < 1.0)


def test_generate_uses_the_averages_unless_told(tiny_config, states):
    plain, averaged = (generate(KEY, states, tiny_config, 3, ema=ema) for ema in (False, True))
    for result, with_ema, without in zip(
        generate(KEY, states, tiny_config, 3), averaged, plain, strict=True
    ):
        np.testing.assert_array_equal(result, with_ema)
        assert jnp.max(jnp.abs(with_ema - without)) > 0.01


def test_sample_i_does_not_depend_on_how_many_there_are(tiny_config, states, monkeypatch):
    """Nor on how they are shared out among calls."""
    seven = generate(KEY, states, tiny_config, 7)
    two = generate(KEY, states, tiny_config, 2)
    monkeypatch.setattr(sampling, '_SAMPLES_A_CALL', 3)
    in_parts = generate(KEY, states, tiny_config, 7)
    for all_at_once, few, parts in zip(seven, two, in_parts, strict=True):
        assert all_at_once.shape == parts.shape == (7, 8, 8, 1)
        np.testing.assert_allclose(few, all_at_once[:2], atol=1e-5)
        np.testing.assert_allclose(parts, all_at_once, atol=1e-5)
        assert len(np.unique(np.asarray(all_at_once)[:, 0, 0, 0])) == 7


def test_samples_follow_the_key(tiny_config, states):
    one, other = (generate(jax.random.key(seed), states, tiny_config, 2)[0] for seed in (0, 1))
    assert jnp.all(one != other)


def test_without_langevin_steps_the_refined_are_the_ancestral(tiny_config, states):
    refined_by_chain = generate(KEY, states, tiny_config, 4)
    config = dataclasses.replace(
        tiny_config, langevin=dataclasses.replace(tiny_config.langevin, num_steps=0)
    )
    ancestral, refined = generate(KEY, states, config, 4)
    np.testing.assert_array_equal(refined, ancestral)
    np.testing.assert_allclose(ancestral, refined_by_chain[0], atol=1e-6)
    assert jnp.max(jnp.abs(refined_by_chain[1] - ancestral)) > 0.001


def test_decode_uses_the_states_parameters(states):
    z = jnp.ones((2, 4))
    expected = states.decoder.apply_fn({'params': states.decoder.params}, z, None)
    np.testing.assert_array_equal(decode(states.decoder, z), expected)


@pytest.mark.parametrize('num_samples', [0, -1])
def test_no_samples_are_refused(tiny_config, states, num_samples):
    with pytest.raises(ValueError, match='num_samples must be 1 or more, got'):
        generate(KEY, states, tiny_config, num_samples)


def test_the_film_begins_with_the_ancestral_samples_and_ends_with_the_refined(tiny_config, states):
    film = sampling.revision(KEY, states, tiny_config, 3)
    ancestral, refined = generate(KEY, states, tiny_config, 3, ema=False)
    assert film.shape == (tiny_config.langevin.num_steps + 1, 3, 8, 8, 1)
    np.testing.assert_allclose(film[0], ancestral, atol=1e-6)
    np.testing.assert_allclose(film[-1], refined, atol=1e-5)
    assert jnp.all(jnp.any(film[1:] != film[:-1], axis=(2, 3, 4)))


@pytest.mark.parametrize('spherical', [False, True])
def test_between_ends_at_the_two_draws(spherical):
    first, last = np.random.default_rng(0).normal(size=(2, 5, 16)).astype(np.float32)
    points = sampling.between(first, last, 7, spherical)
    assert points.shape == (5, 7, 16)
    np.testing.assert_allclose(points[:, 0], first, atol=1e-6)
    np.testing.assert_allclose(points[:, -1], last, atol=1e-6)


def test_between_two_points_of_a_circle():
    """Half way from (1, 0) to (0, 1): (1/2, 1/2) on the line, on the circle on the arc."""
    first, last = np.float32([[1.0, 0.0]]), np.float32([[0.0, 1.0]])
    np.testing.assert_allclose(sampling.between(first, last, 3, False)[0, 1], [0.5, 0.5])
    np.testing.assert_allclose(
        sampling.between(first, last, 3, True)[0, 1], [0.5**0.5, 0.5**0.5], rtol=1e-6
    )


def slerp(first, last, num_points):
    """K. Shoemake's formula in float64, as it is written."""
    first, last = np.float64(first)[:, np.newaxis], np.float64(last)[:, np.newaxis]
    norm = lambda z: np.linalg.norm(z, axis=-1, keepdims=True)
    cosine = np.sum(first * last, axis=-1, keepdims=True) / (norm(first) * norm(last))
    angle, part = np.arccos(cosine), np.linspace(0.0, 1.0, num_points).reshape(1, -1, 1)
    weights = np.sin((1.0 - part) * angle), np.sin(part * angle)
    return (weights[0] * first + weights[1] * last) / np.sin(angle)


@pytest.mark.parametrize('size', [2, 3, 16, 128])
def test_the_arc_against_float64(size):
    rng = np.random.default_rng(size)
    first, last = rng.normal(size=(2, 2000, size)).astype(np.float32)
    # Some of these pairs nearly point the same way.
    last[:500] = first[:500] + np.float32(10.0) ** rng.uniform(-2, 0, (500, 1)) * last[:500]
    is_arc = np.abs(np.pi - angle_between(first, last)) > 0.02
    first, last = first[is_arc], last[is_arc]
    points = sampling.between(first, last, 9, True)
    np.testing.assert_allclose(points, slerp(first, last, 9), atol=3e-4, rtol=3e-4)


def angle_between(first, last):
    first, last = np.float64(first), np.float64(last)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(last, axis=1)
    return np.arccos(np.clip(np.sum(first * last, axis=1) / norms, -1.0, 1.0))


A = np.float32([1.0, -2.0, 0.5])
UP = np.float32([2.0, 1.0, 0.0])  # At a right angle to it.


@pytest.mark.parametrize(
    'first, last',
    [
        (A, A),
        (A, 3.0 * A),
        (A, np.nextafter(A, np.float32(9.0))),
        (A, A + np.float32(1e-5) * UP),
        (A, -A),
        (A, -2.0 * A),
        (A, np.nextafter(-A, np.float32(9.0))),
        (A, 0.0 * A),
        (0.0 * A, A),
        (0.0 * A, 0.0 * A),
        (A[:1], 2.0 * A[:1]),
        (A[:1], -3.0 * A[:1]),
        (A[:1], 0.0 * A[:1]),
        (np.float32(1e30) * A, np.float32(-1e30) * A),
    ],
)
def test_where_no_arc_leads_it_is_the_line(first, last):
    def end(first, last):
        return jnp.sum(sampling.between(first, last, 5, True))

    first, last = np.float32(first)[np.newaxis], np.float32(last)[np.newaxis]
    line = sampling.between(first, last, 5, False)
    np.testing.assert_allclose(sampling.between(first, last, 5, True), line, rtol=1e-5, atol=1e-6)
    for gradient in jax.grad(end, (0, 1))(first, last):
        np.testing.assert_allclose(gradient, 2.5, rtol=1e-3)


@pytest.mark.parametrize('scale', [1e-30, 1.0, 1e30])
def test_the_arc_of_a_right_angle_at_any_scale(scale):
    first, last = np.float32(scale) * A[np.newaxis], np.float32(scale) * UP[np.newaxis]
    middle = sampling.between(first, last, 3, True)[0, 1] / np.float32(scale)
    np.testing.assert_allclose(middle, (A + UP) * 0.5**0.5, rtol=1e-5)


def test_one_latent_number_is_interpolated(tiny_config):
    config = dataclasses.replace(tiny_config, latent_dim=1)
    states = jit_states(KEY, config)
    for images in sampling.interpolate(KEY, states, config, 8, 5, spherical=True):
        assert np.all(np.isfinite(images))


def test_interpolation_decodes_the_draws_at_its_ends(tiny_config, states):
    decoded, refined = sampling.interpolate(KEY, states, tiny_config, 2, 5)
    assert decoded.shape == refined.shape == (2, 5, 8, 8, 1)
    key_first, key_last, key_langevin = jax.random.split(branch(KEY, 'interpolate'), 3)
    for key, column in ((key_first, 0), (key_last, -1)):
        guess = decode(states.decoder, sampling.sample_prior(key, 2, tiny_config.latent_dim))
        np.testing.assert_allclose(decoded[:, column], guess, atol=1e-6)
        keys = sampling.chain_keys(key_langevin, 2)
        revised = sampling.refine(keys, states, tiny_config, guess, 3)
        np.testing.assert_allclose(refined[:, column], revised, atol=1e-5)


def test_reconstruction_decodes_the_posterior_mean(tiny_config, states):
    x = jnp.asarray(np.random.default_rng(0).uniform(-1.0, 1.0, (4, 8, 8, 1)), jnp.float32)
    mean, _ = states.encoder.apply_fn({'params': states.encoder.params}, x)
    expected = decode(states.decoder, mean)
    np.testing.assert_allclose(sampling.reconstruct(states, x), expected, atol=1e-6)
