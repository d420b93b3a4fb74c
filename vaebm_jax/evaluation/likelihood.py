"""--mode=likelihood: nats and bits of the test images, written to `likelihood.json`."""

import os
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from vaebm_jax.config import Config, DataConfig
from vaebm_jax.data.batch import beyond_ends
from vaebm_jax.data.loading import first_images
from vaebm_jax.data.sources import density_of
from vaebm_jax.evaluation.diagnostics import energies_of
from vaebm_jax.evaluation.scores import refuse_too_few
from vaebm_jax.methods import refuse_without_energy
from vaebm_jax.methods.generate import generate
from vaebm_jax.models.apply import averaged, energy_of
from vaebm_jax.runtime import log
from vaebm_jax.runtime.atomic_files import local_folder, write_json
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.ais import Bracket, bits_per_dimension, bracket_log_z, gaussian_of
from vaebm_jax.samplers.keys import branch
from vaebm_jax.training import checkpoints
from vaebm_jax.training.progress import say_checkpoint

_MAX_IMAGES = 10_000
_STARTS = {'reverse_forward': "the chains' ends", 'reverse_samples': 'refined samples'}
_NUMBERS_A_CALL = 2**18  # Pixels of all chains in one call.


def evaluate_likelihood(
    config: Config,
    workdir: str | os.PathLike,
    *,
    num_samples: int = 256,
    num_temperatures: int = 1_000,
    step: int | None = None,
    ema: bool = True,
) -> dict:
    """Brackets log Z of a checkpoint's energy, and so the likelihood of the test images.

    The paths start at the Gaussian with the moments of refined samples, which are also one of the
    two starting sets of the reverse annealing.

    Args:
      config: of the run.
      workdir: of the run; `likelihood.json` is written there.
      num_samples: number of chains in each direction.
      num_temperatures: of a path.
      step: of the checkpoint; None: the newest.
      ema: use the averaged parameters.

    Returns:
      The content of `likelihood.json`. `log_z` has an object for each of `forward`,
      `reverse_forward` and `reverse_samples`, with `log_z`, `standard_error` (nats) and
      `effective_sample_size`, and the bounds `lower` and `upper`. `nats` per image and
      `bits_per_dimension` have `lower` and `upper` from these, and the `standard_error` over test
      images.

    Raises:
      UserError: if the run is conditional or without an energy, there is no such checkpoint or data
        set, or the energy is not finite.
    """
    refuse(config)
    workdir = local_folder(workdir)
    states, config = checkpoints.load(workdir, step, config)
    states = averaged(states) if ema else states
    say_checkpoint('likelihood', int(states.step), workdir, config)
    checkpoints.warn_of_seen_images(workdir, int(states.step), config)
    images = first_images(config.data, 'test', _MAX_IMAGES)
    refuse_too_few(images, 'test', '--mode=likelihood')
    if density_of(config.data) is None:
        log.say(
            'likelihood: an energy that learned from short chains is right near its samples alone; '
            'if minima far from these have most of Z, the numbers below say nothing of the samples '
            'and compare no models (docs/likelihood.md)'
        )
        if np.issubdtype(images.dtype, np.floating):
            log.say(
                'likelihood: the images are not of 8 bits, so nats and bits are of a density over '
                'pixels in [-1, 1], which may be above 1 (negative bits)'
            )
    x, bin_width = dequantized(np.random.default_rng(config.seed), images, config.data)
    key = branch(jax.random.key(config.seed, impl=config.generator), 'likelihood')
    key_samples, key_chains = jax.random.split(key)
    _, samples = generate(key_samples, states, config, num_samples, ema=False)
    num_dims = samples[0].size
    log.say('likelihood: a pilot run for the schedule')
    bracket = bracket_log_z(
        key_chains,
        energy_of(states.energy, config),
        gaussian_of(samples),
        samples,
        num_chains=num_samples,
        num_temperatures=num_temperatures,
        chains_a_call=min(64, max(1, _NUMBERS_A_CALL // num_dims)),
        track=_tracked,
    )
    if not np.isfinite([bracket.lower, bracket.upper]).all():
        raise UserError(
            f'the energy of {workdir} is not finite everywhere: log Z {bracket.lower} to '
            f'{bracket.upper}'
        )
    result = {
        'checkpoint_step': int(states.step),
        'data': config.data.name,
        'ema': ema,
        'num_chains': num_samples,
        'num_temperatures': num_temperatures,
        'lowest_acceptance': bracket.acceptance,
    } | likelihood_of(energies_of(states, config, x), bracket, num_dims, bin_width)
    write_json(workdir / 'likelihood.json', result)
    for line in table(result):
        log.say(line)
    log.say(f'finished: {workdir / "likelihood.json"}')
    return result


def refuse(config: Config) -> None:
    """Raises a UserError if the run's energy has no likelihood of images."""
    if config.condition.kind != 'none':
        raise UserError(
            '--mode=likelihood needs a run without a condition, got '
            f'condition.kind={config.condition.kind!r}'
        )
    refuse_without_energy('likelihood', config)
    if not config.energy.reference_std:
        raise UserError(
            '--mode=likelihood needs an energy with a reference term, without which Z may be '
            'infinite, got energy.reference_std=0'
        )


def _tracked(items: Iterable, doing: str, total: int, size: int) -> Iterator:
    return log.tracked(items, doing, 'chains', total, size)


def dequantized(
    rng: np.random.Generator, images: np.ndarray, settings: DataConfig
) -> tuple[np.ndarray, float]:
    """8-bit images dequantized with uniform noise over their bins, and the width of a bin.

    A density at only 256 values is not a likelihood. With `data.dequantize` the bins are those of
    the training, `[k, k + 1] / 128 - 1`; otherwise they are centred at the training's values,
    `k / 127.5 - 1`; the first and the last bin are moved out by `data.headroom`. Floating-point
    points are unchanged, with a width of 1.

    Args:
      rng: of the noise.
      images: `[N, H, W, C]` uint8, or points, float.
      settings: of the run.
    """
    if np.issubdtype(images.dtype, np.floating):
        return images, 1.0
    noise = rng.random(images.shape)
    if settings.dequantize:
        x, bin_width = (images + noise) / 128.0 - 1.0, 1 / 128.0
    else:
        x, bin_width = (images + noise - 0.5) / 127.5 - 1.0, 1 / 127.5
    x = x + beyond_ends(images, settings.headroom)
    return np.asarray(x, np.float32), bin_width


def likelihood_of(energies: np.ndarray, bracket: Bracket, num_dims: int, bin_width: float) -> dict:
    """`log p(x) = -U(x) - log Z` of images, by both bounds of log Z.

    Args:
      energies: of the images, `[N]` nats.
      bracket: of log Z.
      num_dims: dimensions of an image.
      bin_width: of `dequantized`.
    """
    mean, error = -np.mean(energies), np.std(energies, ddof=1) / np.sqrt(len(energies))
    lower, upper = float(mean - bracket.upper), float(mean - bracket.lower)
    bits = lambda nats: bits_per_dimension(nats, num_dims, bin_width)
    estimates = {'forward': bracket.forward} | {
        f'reverse_{name}': estimate for name, estimate in bracket.reverse.items()
    }
    result = {
        'log_z': {name: estimate._asdict() for name, estimate in estimates.items()}
        | {'lower': bracket.lower, 'upper': bracket.upper},
        'num_images': len(energies),
        'nats': {'lower': lower, 'upper': upper, 'standard_error': float(error)},
        'bits_per_dimension': {
            'lower': bits(upper),
            'upper': bits(lower),
            'standard_error': float(error / (num_dims * np.log(2.0))),
        },
    }
    return result | _warned(estimates)


def _warned(estimates):
    """Warnings, if the estimates cannot be trusted."""
    forward = estimates['forward']
    warnings = []
    if forward.effective_sample_size < 10.0:
        warnings.append(
            f'the weight is on {forward.effective_sample_size:.1f} chains, so standard errors of '
            'log Z are meaningless; the lower bound holds, the upper one only if no energy is '
            'lower than those found'
        )
    for way, what in _STARTS.items():
        back = estimates[way]
        if back.log_z < forward.log_z - 3.0 * (forward.standard_error + back.standard_error):
            warnings.append(
                f'by {what} log Z would be at most {back.log_z:.6g} nats, but it is at least '
                f'{forward.log_z:.6g}: they are not samples of p'
            )
    return {'warning': '; '.join(warnings)} if warnings else {}


def table(result: dict) -> list[str]:
    """The estimates as lines for a terminal."""
    ways = {
        'forward': 'log Z, forward',
        'reverse_forward': 'log Z, reverse from ends',
        'reverse_samples': 'log Z, reverse from samples',
    }
    lines = [
        '{:28s} {:14.3f} +- {:.2g} nats, effective sample size {:.4g} of {}'.format(
            name, *result['log_z'][way].values(), result['num_chains']
        )
        for way, name in ways.items()
    ]
    for name, unit in (('nats', 'log p(x)'), ('bits_per_dimension', 'bits per dimension')):
        interval = result[name]
        lines.append(
            f'{unit:28s} {interval["lower"]:.5g} to {interval["upper"]:.5g}, +- '
            f'{interval["standard_error"]:.2g} over {result["num_images"]} test images'
        )
    if 'warning' in result:
        lines.append('warning: ' + result['warning'])
    return lines
