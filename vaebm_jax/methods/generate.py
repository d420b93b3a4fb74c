"""Samples of trained models: generate, refine, recover, interpolate, and the steps of a chain."""

import functools
from collections.abc import Callable, Iterable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vaebm_jax.config import Config
from vaebm_jax.methods import METHODS, has_energy, sample_stages
from vaebm_jax.methods.chains import run_chain
from vaebm_jax.models.apply import averaged, decode
from vaebm_jax.models.states import States
from vaebm_jax.models.vae import sample_prior
from vaebm_jax.samplers import arguments
from vaebm_jax.samplers.keys import branch, chain_keys, check_one_key

_SAMPLES_A_CALL = 256
_RECOVERIES_A_CALL = 32


def generate(
    key: chex.PRNGKey, states: States, config: Config, num_samples: int, ema: bool = True
) -> tuple[chex.Array, chex.Array]:
    """Samples images: ancestral samples of the decoder, and the same after the Langevin steps.

    Sample i depends only on `key` and i, not on the number of samples.

    Args:
      key: one key.
      states: trained models, as returned by `load`.
      config: the experiment; `config.langevin` is the chain.
      num_samples: N.
      ema: use the averaged parameters.

    Returns:
      Images of the method's first and last stage, ancestral and refined, `[N, H, W, C]` each; a
      method with one stage (vae) returns the ancestral images twice. Pixels can be outside
      [-1, 1], ancestral ones by at most `config.data.headroom`; `to_uint8` clips them for display.
    """
    check_one_key(key)
    num_samples = arguments.whole_number('num_samples', num_samples, least=1)
    if config.condition.kind != 'none':
        raise ValueError(
            'generate needs models without a condition (recover is for these), got condition.kind '
            f'{config.condition.kind}'
        )
    states = averaged(states) if ema else states
    drawn = generate_by(generate_keys(key), states, config, num_samples)
    return drawn[0], drawn[-1]


def generate_keys(key: chex.PRNGKey) -> tuple[chex.PRNGKey, chex.PRNGKey]:
    """The keys of z and of the chains' noise in `generate`."""
    key_prior, key_langevin = jax.random.split(branch(key, 'generate'))
    return key_prior, key_langevin


def generate_by(
    keys: tuple[chex.PRNGKey, chex.PRNGKey], states: States, config: Config, num_samples: int
) -> tuple[chex.Array, ...]:
    """Each stage of the method's samples, `[N, H, W, C]`, with the states' `params`.

    As `generate`, by keys of z and of the chains' noise.
    """
    size = min(num_samples, _SAMPLES_A_CALL)
    parts = [_generate(*keys, states, config, size, first) for first in range(0, num_samples, size)]
    return tuple(jnp.concatenate(part)[:num_samples] for part in zip(*parts, strict=True))


@functools.partial(jax.jit, static_argnames=('config', 'num_samples'))
def _generate(key_prior, key_langevin, states, config, num_samples, first):
    keys = tuple(chain_keys(key, num_samples, first) for key in (key_prior, key_langevin))
    drawn = METHODS[config.method].sample(keys, states, config, num_samples)
    return tuple(drawn[name] for name in sample_stages(config))


def recover(
    key: chex.PRNGKey,
    states: States,
    config: Config,
    condition: chex.Array,
    num_recoveries: int,
    ema: bool = True,
    track: Callable[[range], Iterable[int]] = iter,
) -> tuple[np.ndarray, np.ndarray]:
    """Several images for each condition: ancestral samples, and the same after refinement.

    Recovery k of condition i depends only on `key`, i, k and that condition.

    Args:
      key: one key.
      states: trained conditional models, as returned by `load`.
      config: the experiment; `config.langevin` is the chain.
      condition: `[N, H, W, C + 1]`, of `make_condition` or `from_mask`.
      num_recoveries: K.
      ema: use the averaged parameters.
      track: iterates over the first index of each call, for example with a progress bar.

    Returns:
      Ancestral and refined images, `[N, K, H, W, C]` each, with observed pixels unchanged; a method
      without an energy (vae) returns the ancestral images twice.
    """
    check_one_key(key)
    num_recoveries = arguments.whole_number('num_recoveries', num_recoveries, least=1)
    if config.condition.kind == 'none':
        raise ValueError(
            'recover needs models with a condition (generate is for these), got condition.kind none'
        )
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
    """The keys of z and of the chains' noise in `recover`."""
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
    keys = tuple(
        jax.vmap(jax.random.fold_in, (None, 0))(key, chains) for key in (key_prior, key_langevin)
    )
    drawn = METHODS[config.method].sample(keys, states, config, len(chains), condition)
    names = tuple(sample_stages(config))
    return drawn[names[0]], drawn[names[-1]]


@functools.partial(jax.jit, static_argnames=('config', 'num_steps'))
def refine(
    key: chex.PRNGKey,
    states: States,
    config: Config,
    x: chex.Array,
    num_steps: int,
    first_step: chex.Numeric = 0,
    condition: chex.Array | None = None,
) -> chex.Array:
    """`num_steps` of the configured chain on the energy, starting from `x` `[N, H, W, C]`.

    Args:
      key: one key, or `[N]`, one per chain.
      states: trained models; their `params` are used.
      config: `config.langevin` is the chain.
      x: the current points of the chains.
      num_steps: of this call.
      first_step: number of steps that the chains have already done.
      condition: `[N, H, W, C + 1]`, or None.
    """
    return run_chain(key, states.energy, config, x, num_steps, condition, first_step)[0]


@functools.partial(jax.jit, static_argnames=('config', 'num_samples'))
def revision(key: chex.PRNGKey, states: States, config: Config, num_samples: int) -> chex.Array:
    """The steps of the chain (poster, "Langevin revision"): `[T + 1, N, H, W, C]`.

    The first are the samples before refinement and the last the refined samples of `generate` with
    this key and `ema=False`.
    """
    method = METHODS[config.method]
    keys = tuple(chain_keys(part, num_samples) for part in generate_keys(key))
    stages = list(sample_stages(config))
    before = stages[stages.index('refined') - 1]
    start = method.sample(keys, states, config, num_samples)[before]

    def step(x, t):
        x = refine(keys[1], states, config, x, 1, t)
        return x, x

    _, film = jax.lax.scan(step, start, jnp.arange(config.langevin.num_steps, dtype=jnp.int32))
    return jnp.concatenate([start[jnp.newaxis], film])


def between(first: chex.Array, last: chex.Array, num_points: int, spherical: bool) -> chex.Array:
    """From z `[N, d]` to z `[N, d]` in even steps, both included: `[N, num_points, d]`.

    In a straight line as the authors do, or along the arc, whose points have the norm of samples of
    the prior (K. Shoemake, 1985). If no arc connects a pair, the line is used: for opposite
    directions, as in half of all pairs if d = 1, and for a zero. For a pair of equal directions the
    line is the arc's limit.
    """
    part = jnp.linspace(0.0, 1.0, num_points, dtype=first.dtype).reshape(1, -1, 1)
    first, last = first[:, jnp.newaxis], last[:, jnp.newaxis]
    if not spherical:
        return (1.0 - part) * first + part * last
    one, other = _direction(first), _direction(last)
    apart = jnp.sum(jnp.square(other - one), axis=-1, keepdims=True)
    joined = jnp.sum(jnp.square(other + one), axis=-1, keepdims=True)
    # The squared sine of the angle, up to rounding. Zeros have no direction.
    is_arc = 0.25 * apart * joined > jnp.finfo(apart.dtype).eps
    is_arc &= jnp.any(first, axis=-1, keepdims=True) & jnp.any(last, axis=-1, keepdims=True)
    apart, joined = (jnp.where(is_arc, square, 1.0) for square in (apart, joined))
    angle = 2.0 * jnp.arctan2(jnp.sqrt(apart), jnp.sqrt(joined))
    weight = lambda part: jnp.where(is_arc, jnp.sin(part * angle) / jnp.sin(angle), part)
    return weight(1.0 - part) * first + weight(part) * last


def _direction(z):
    """`z` `[..., d]` of length 1; zeros stay."""
    highest = jax.lax.stop_gradient(jnp.max(jnp.abs(z), axis=-1, keepdims=True))
    z = z / jnp.where(highest > 0.0, highest, 1.0)  # So that no square overflows or underflows.
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
    """Images between pairs of samples of the prior, decoded, and the same refined.

    The points of a pair share their Langevin noise, so they differ only by z.

    Args:
      key: one key.
      states: trained models; their `params` are used.
      config: the experiment.
      num_pairs: N.
      num_points: P of each pair, with both ends.
      spherical: along the arc in place of the straight line.

    Returns:
      `[N, P, H, W, C]` each; a method without an energy returns the decoded images twice.
    """
    key_first, key_last, key_langevin = jax.random.split(branch(key, 'interpolate'), 3)
    draw = lambda key: sample_prior(key, num_pairs, config.latent_dim)
    z = between(draw(key_first), draw(key_last), num_points, spherical)
    ancestral = decode(states.decoder, z.reshape(-1, config.latent_dim))
    refined = ancestral
    if has_energy(config):
        keys = jnp.repeat(chain_keys(key_langevin, num_pairs), num_points, axis=0)
        refined = refine(keys, states, config, ancestral, config.langevin.num_steps)
    shape = (num_pairs, num_points, *ancestral.shape[1:])
    return ancestral.reshape(shape), refined.reshape(shape)


@jax.jit
def reconstruct(states: States, x: chex.Array) -> chex.Array:
    """`g(E[z | x])`: images `[B, H, W, C]` through encoder and decoder, without noise."""
    mean, _ = states.encoder.apply_fn({'params': states.encoder.params}, x, None)
    return decode(states.decoder, mean)
