"""Samples of a model: the decoder's guess and its Langevin revision, in training and after it."""

import functools
from collections.abc import Callable, Iterable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax import arguments, spectral
from vaebm_jax.base import States, TrainState
from vaebm_jax.condition import keep_seen, seen_of
from vaebm_jax.config import Config
from vaebm_jax.energy import make_energy_fn
from vaebm_jax.keys import branch, chain_keys, check_one_key
from vaebm_jax.langevin import langevin_sample
from vaebm_jax.methods import has_energy
from vaebm_jax.networks import cast_inner
from vaebm_jax.vae import sample_prior

_SAMPLES_A_CALL = 256
_RECOVERIES_A_CALL = 32


def decode(decoder: TrainState, z: chex.Array, condition: chex.Array | None = None) -> chex.Array:
    """`g_α(z)`: images `[B, H, W, C]` from `z` `[B, d]`, with the state's parameters."""
    return decoder.apply_fn({'params': decoder.params}, z, condition)


def ancestral_langevin_sample(
    key_prior: chex.PRNGKey,
    key_langevin: chex.PRNGKey,
    states: States,
    config: Config,
    num_chains: int,
    condition: chex.Array | None = None,
) -> tuple[chex.Array, chex.Array, dict[str, chex.Array]]:
    """A first guess by the decoder and its revision by the energy (poster, eq. i and ii).

    Args:
      key_prior: for z; one key, or `[num_chains]`.
      key_langevin: for the chain; one key, or `[num_chains]`.
      states: the models, with the parameters to use as `params`.
      config: gives the size of z and the chain.
      num_chains: how many.
      condition: `[num_chains, H, W, K]`, or None.

    Returns:
      The guesses, the revised images, both `[num_chains, H, W, C]`, and `langevin_sample`'s info.
    """
    z = sample_prior(key_prior, num_chains, config.latent_dim)
    guess = decode(states.decoder, z, condition)
    refined, info = run_chain(
        key_langevin, states.energy, config, guess, config.langevin.num_steps, condition
    )
    return guess, refined, info


def run_chain(
    key: chex.PRNGKey,
    energy: TrainState,
    config: Config,
    x: chex.Array,
    num_steps: int,
    condition: chex.Array | None = None,
    first_step: chex.Numeric = 0,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """`langevin_sample` as the config has it: on the energy, what is seen left in its place.

    Args:
      key: one key, or one a chain.
      energy: the model.
      config: `config.langevin` is the chain, `config.condition.moves` what it moves.
      x: where the chains start, `[B, H, W, C]`.
      num_steps: T.
      condition: `[B, H, W, C + 1]`, or None.
      first_step: how many steps the chains have behind them.
    """
    hides = condition is not None and config.condition.moves == 'hidden'
    refined, info = langevin_sample(
        key,
        energy_of(energy, config, condition),
        x,
        num_steps=num_steps,
        step_size=config.langevin.step_size,
        noise_scale=config.langevin.noise_scale,
        max_drift=config.langevin.max_drift,
        first_step=first_step,
        moves=~seen_of(condition) if hides else None,
    )
    return keep_seen(refined, condition), info


def energy_of(
    state: TrainState, config: Config, condition: chex.Array | None = None
) -> Callable[[chex.Array], chex.Array]:
    """The energy `x -> [B]` nats of one TrainState, with its `params`."""
    config.freeze()
    params = state.params
    if config.energy.spectral_norm:
        params = spectral.normalize(params, state.extra, config.energy.spectral_norm)
    return make_energy_fn(
        state.apply_fn,
        cast_inner(params, config.dtype),
        condition,
        reference_std=config.energy.reference_std,
        scale=config.energy.scale,
        reference_mean=config.energy.reference_mean,
    )


def averaged(states: States) -> States:
    """The states with the moving averages in place of the parameters."""
    models = states.models.items()
    return states.replace(
        models={name: model.replace(params=model.ema_params) for name, model in models}
    )


def energy_fn(
    states: States, config: Config, ema: bool = True, condition: chex.Array | None = None
) -> Callable[[chex.Array], chex.Array]:
    """A trained energy as a function of images `[B, H, W, C]`, to `[B]` in nats.

    Images as in training: in [-1, 1], black and white as far beyond as `config.data.headroom`.
    """
    return energy_of((averaged(states) if ema else states).energy, config, condition)


def generate(
    key: chex.PRNGKey, states: States, config: Config, num_samples: int, ema: bool = True
) -> tuple[chex.Array, chex.Array]:
    """Draws images: the decoder's guesses, and the same after the Langevin revision.

    Sample i depends on `key` and i alone, however many are drawn.

    Args:
      key: one key.
      states: trained models, as `load` gives them.
      config: the experiment; `config.langevin` is the chain.
      num_samples: N.
      ema: draw with the averaged parameters.

    Returns:
      Ancestral and refined images, `[N, H, W, C]` each; by a method without an energy (vae) the
      ancestral twice. Pixels leave [-1, 1], the ancestral by `config.data.headroom` at most; clip
      them to show them.
    """
    check_one_key(key)
    num_samples = arguments.whole_number('num_samples', num_samples, least=1)
    if config.condition.kind != 'none':
        raise ValueError(f'recover draws from models with a condition, got {config.condition.kind}')
    return generate_by(generate_keys(key), averaged(states) if ema else states, config, num_samples)


def generate_keys(key: chex.PRNGKey) -> tuple[chex.PRNGKey, chex.PRNGKey]:
    """The keys of z and of the chains' noise that `generate` draws with."""
    key_prior, key_langevin = jax.random.split(branch(key, 'generate'))
    return key_prior, key_langevin


def generate_by(
    keys: tuple[chex.PRNGKey, chex.PRNGKey], states: States, config: Config, num_samples: int
) -> tuple[chex.Array, chex.Array]:
    """As `generate`, by keys of z and of the chains' noise, and with the states' `params`."""
    size = min(num_samples, _SAMPLES_A_CALL)
    parts = [_generate(*keys, states, config, size, first) for first in range(0, num_samples, size)]
    ancestral, refined = (jnp.concatenate(part)[:num_samples] for part in zip(*parts, strict=True))
    return ancestral, refined


@functools.partial(jax.jit, static_argnames=('config', 'num_samples'))
def _generate(key_prior, key_langevin, states, config, num_samples, first):
    return _drawn(
        chain_keys(key_prior, num_samples, first),
        chain_keys(key_langevin, num_samples, first),
        states,
        config,
        num_samples,
    )


def _drawn(key_prior, key_langevin, states, config, num_chains, condition=None):
    """What the method draws, ancestral and refined; the ancestral twice where it has no energy."""
    if has_energy(config):
        return ancestral_langevin_sample(
            key_prior, key_langevin, states, config, num_chains, condition
        )[:2]
    z = sample_prior(key_prior, num_chains, config.latent_dim)
    guess = decode(states.decoder, z, condition)
    return guess, guess


def recover(
    key: chex.PRNGKey,
    states: States,
    config: Config,
    condition: chex.Array,
    num_recoveries: int,
    ema: bool = True,
    track: Callable[[range], Iterable[int]] = iter,
) -> tuple[np.ndarray, np.ndarray]:
    """Several images for each condition: the decoder's guesses, and the same after revision.

    Recovery k of condition i depends on `key`, i, k and that condition alone.

    Args:
      key: one key.
      states: trained conditional models, as `load` gives them.
      config: the experiment; `config.langevin` is the chain.
      condition: `[N, H, W, C + 1]`, of `make_condition` or `from_mask`.
      num_recoveries: K.
      ema: draw with the averaged parameters.
      track: goes through the numbers at which the calls' recoveries begin; may show progress.

    Returns:
      Ancestral and refined images, `[N, K, H, W, C]` each, what is seen in its place; by a method
      without an energy (vae) the ancestral twice.
    """
    check_one_key(key)
    num_recoveries = arguments.whole_number('num_recoveries', num_recoveries, least=1)
    if config.condition.kind == 'none':
        raise ValueError('generate draws from models without a condition, got condition.kind none')
    size, channels = config.data.image_size, config.data.num_channels
    if np.ndim(condition) != 4 or np.shape(condition)[1:] != (size, size, channels + 1):
        raise ValueError(
            f'condition must be of shape [N, {size}, {size}, {channels + 1}], got shape '
            f'{np.shape(condition)}'
        )
    condition = arguments.points(condition, 'condition')
    states = averaged(states) if ema else states
    return recover_by(recover_keys(key), states, config, condition, num_recoveries, track)


def recover_keys(key: chex.PRNGKey) -> tuple[chex.PRNGKey, chex.PRNGKey]:
    """The keys of z and of the chains' noise that `recover` draws with."""
    key_prior, key_langevin = jax.random.split(branch(key, 'recover'))
    return key_prior, key_langevin


def recover_by(
    keys: tuple[chex.PRNGKey, chex.PRNGKey],
    states: States,
    config: Config,
    condition: chex.Array,
    num_recoveries: int,
    track: Callable[[range], Iterable[int]] = iter,
) -> tuple[np.ndarray, np.ndarray]:
    """As `recover`, by keys of z and of the chains' noise, and with the states' `params`."""
    num_images, channels = len(condition), condition.shape[-1] - 1
    num_chains = num_images * num_recoveries
    size = min(num_chains, _RECOVERIES_A_CALL)
    parts = []
    for first in track(range(0, num_chains, size)):
        chains = np.minimum(np.arange(first, first + size), num_chains - 1)
        rows = jnp.asarray(condition)[chains // num_recoveries]
        parts.append(jax.device_get(_recover(*keys, states, config, rows, chains)))
    shape = (num_images, num_recoveries, *condition.shape[1:3], channels)
    ancestral, refined = (
        np.concatenate(part)[:num_chains].reshape(shape) for part in zip(*parts, strict=True)
    )
    return ancestral, refined


@functools.partial(jax.jit, static_argnames='config')
def _recover(key_prior, key_langevin, states, config, condition, chains):
    keys = (
        jax.vmap(jax.random.fold_in, (None, 0))(key, chains) for key in (key_prior, key_langevin)
    )
    return _drawn(*keys, states, config, len(chains), condition)


@functools.partial(jax.jit, static_argnames=('config', 'num_steps'))
def revise(
    key: chex.PRNGKey,
    states: States,
    config: Config,
    x: chex.Array,
    num_steps: int,
    first_step: chex.Numeric = 0,
    condition: chex.Array | None = None,
) -> chex.Array:
    """`num_steps` of the config's chain on the energy, from `x` `[N, H, W, C]` on.

    Args:
      key: one key, or `[N]`, one a chain.
      states: trained models; their `params` count.
      config: `config.langevin` is the chain.
      x: where the chains stand.
      num_steps: of this call.
      first_step: how many steps they have behind them.
      condition: `[N, H, W, C + 1]`, or None.
    """
    return run_chain(key, states.energy, config, x, num_steps, condition, first_step)[0]


@functools.partial(jax.jit, static_argnames=('config', 'num_samples'))
def revision(key: chex.PRNGKey, states: States, config: Config, num_samples: int) -> chex.Array:
    """The revision by steps (poster, "Langevin revision"): `[T + 1, N, H, W, C]`.

    The first are the ancestral samples and the last the refined ones of `generate` with this key
    and `ema=False`.
    """
    key_prior, key_langevin = generate_keys(key)
    keys = chain_keys(key_langevin, num_samples)
    guess = decode(states.decoder, sample_prior(key_prior, num_samples, config.latent_dim))

    def step(x, t):
        x = revise(keys, states, config, x, 1, t)
        return x, x

    _, film = jax.lax.scan(step, guess, jnp.arange(config.langevin.num_steps, dtype=jnp.int32))
    return jnp.concatenate([guess[jnp.newaxis], film])


def between(first: chex.Array, last: chex.Array, num_points: int, spherical: bool) -> chex.Array:
    """From z `[N, d]` to z `[N, d]` in even steps, both included: `[N, num_points, d]`.

    In a straight line as the authors do, or along the arc, whose points are as long as draws from
    the prior are (K. Shoemake, 1985). Where no arc leads from one to the other, the line is taken:
    for a pair of opposite directions, as half of all pairs are where d = 1, and for a zero. For a
    pair of one direction the line is the arc's limit.
    """
    part = jnp.linspace(0.0, 1.0, num_points, dtype=first.dtype).reshape(1, -1, 1)
    first, last = first[:, jnp.newaxis], last[:, jnp.newaxis]
    if not spherical:
        return (1.0 - part) * first + part * last
    one, other = _direction(first), _direction(last)
    apart = jnp.sum(jnp.square(other - one), axis=-1, keepdims=True)
    joined = jnp.sum(jnp.square(other + one), axis=-1, keepdims=True)
    # The squared sine of the angle, to what rounding leaves of it. Zeros have no direction.
    is_arc = 0.25 * apart * joined > jnp.finfo(apart.dtype).eps
    is_arc &= jnp.any(first, axis=-1, keepdims=True) & jnp.any(last, axis=-1, keepdims=True)
    apart, joined = (jnp.where(is_arc, square, 1.0) for square in (apart, joined))
    angle = 2.0 * jnp.arctan2(jnp.sqrt(apart), jnp.sqrt(joined))
    weight = lambda part: jnp.where(is_arc, jnp.sin(part * angle) / jnp.sin(angle), part)
    return weight(1.0 - part) * first + weight(part) * last


def _direction(z):
    """`z` `[..., d]` of length 1; zeros stay."""
    highest = jax.lax.stop_gradient(jnp.max(jnp.abs(z), axis=-1, keepdims=True))
    z = z / jnp.where(highest > 0.0, highest, 1.0)  # So that no square leaves the floats' range.
    square = jnp.sum(jnp.square(z), axis=-1, keepdims=True)
    return z / jnp.sqrt(jnp.where(square > 0.0, square, 1.0))


@functools.partial(jax.jit, static_argnames=('config', 'num_pairs', 'num_points', 'spherical'))
def interpolate(
    key: chex.PRNGKey,
    states: States,
    config: Config,
    num_pairs: int,
    num_points: int,
    spherical: bool = False,
) -> tuple[chex.Array, chex.Array]:
    """Images between pairs of prior draws, decoded, and the same revised.

    The points of a pair share their Langevin noise, so that only z makes them differ.

    Args:
      key: one key.
      states: trained models; their `params` count.
      config: the experiment.
      num_pairs: N.
      num_points: P of each pair; the first and the last are the draws themselves.
      spherical: along the arc in place of the straight line.

    Returns:
      `[N, P, H, W, C]` each; by a method without an energy the decoded twice.
    """
    key_first, key_last, key_langevin = jax.random.split(branch(key, 'interpolate'), 3)
    draw = lambda key: sample_prior(key, num_pairs, config.latent_dim)
    z = between(draw(key_first), draw(key_last), num_points, spherical)
    guess = decode(states.decoder, z.reshape(-1, config.latent_dim))
    refined = guess
    if has_energy(config):
        keys = jnp.repeat(chain_keys(key_langevin, num_pairs), num_points, axis=0)
        refined = revise(keys, states, config, guess, config.langevin.num_steps)
    shape = (num_pairs, num_points, *guess.shape[1:])
    return guess.reshape(shape), refined.reshape(shape)


@jax.jit
def reconstruct(states: States, x: chex.Array) -> chex.Array:
    """`g(E[z | x])`: images `[B, H, W, C]` through encoder and decoder, without noise."""
    mean, _ = states.encoder.apply_fn({'params': states.encoder.params}, x, None)
    return decode(states.decoder, mean)
