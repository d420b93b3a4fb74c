"""Diagnostics of a trained energy: other images, long chains, the Metropolis test."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from vaebm_jax.config import Config
from vaebm_jax.data.batch import as_pixels
from vaebm_jax.data.loading import first_images
from vaebm_jax.methods.generate import generate, refine
from vaebm_jax.models.apply import energy_of
from vaebm_jax.models.energy import reference_energy
from vaebm_jax.models.states import States
from vaebm_jax.runtime import log
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.keys import branch
from vaebm_jax.samplers.mala import acceptance

_BATCH = 500
_NUM_CHAINS = 64
_NUM_BINS = 60
# Sets of the same shape, each out of distribution for the other.
_NEIGHBOURS = {'mnist': 'fashion_mnist', 'fashion_mnist': 'mnist'}


def diagnose(
    states: States, config: Config, samples: dict[str, np.ndarray], num_images: int
) -> dict:
    """The diagnostics of `evaluation.json`.

    Args:
      states: trained models, with the parameters to use as `params`.
      config: of the run.
      samples: `{sampler: [N, H, W, C]}`, whose energies are computed too.
      num_images: of each set, at most.

    Returns:
      `energies` (for each set `mean` and `std` in nats, `auroc`, how well the energy discriminates
      it from the test images, and `auroc_reference_term`, the same by |x - m|² alone),
      `histogram`, `long_chains` and `acceptance`.
    """
    sets = dict(image_sets(config, num_images)) | {
        name: images[:num_images] for name, images in samples.items()
    }
    log.say(f'energies: {", ".join(sets)}')
    energies = {
        name: energies_of(states, config, images)
        for name, images in log.tracked(sets.items(), 'energies', 'sets', len(sets))
    }
    key = branch(jax.random.key(config.seed, impl=config.generator), 'diagnostics')
    key_chains, key_acceptance = jax.random.split(key)
    return {
        'energies': energy_table(sets, energies, config.energy.reference_mean),
        'histogram': histogram(energies),
        'long_chains': long_chains(key_chains, states, config),
        'acceptance': metropolis(key_acceptance, states, config),
    }


def image_sets(config: Config, num_images: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and images of train, test and out-of-distribution sets; pixels as in training.

    Out of distribution are the neighbouring data set if it is prepared, test images with their
    pixels shuffled or their values inverted, and uniform noise.
    """
    rng = np.random.default_rng(config.seed)
    for split in ('train', 'test'):
        images = first_images(config.data, split, num_images)
        images = as_pixels(images, config.data.headroom)
        yield split, images
    if neighbour := _NEIGHBOURS.get(config.data.name):
        try:
            other = dataclasses.replace(config.data, name=neighbour)
            others = first_images(other, 'test', num_images)
            yield neighbour, as_pixels(others, config.data.headroom)
        except UserError as error:
            log.say(f'no energies of {neighbour}: {error}')
    height, width = images.shape[1:3]
    order = rng.permutation(height * width)
    flat = images.reshape(len(images), -1, images.shape[-1])
    yield 'shuffled pixels', flat[:, order].reshape(images.shape)
    yield 'inverted', -images
    yield 'uniform noise', rng.uniform(-1.0, 1.0, images.shape).astype(np.float32)


def energies_of(states: States, config: Config, images: np.ndarray) -> np.ndarray:
    """U of images `[N, H, W, C]`, `[N]` nats in float64."""
    energy = jax.jit(energy_of(states.energy, config))
    parts = [energy(images[first : first + _BATCH]) for first in range(0, len(images), _BATCH)]
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def energy_table(
    sets: dict[str, np.ndarray], energies: dict[str, np.ndarray], reference_mean: float
) -> dict:
    """Mean, standard deviation, and AUROC against `test` by the energy and by |x - m|² alone."""
    norms = {
        name: np.asarray(reference_energy(jnp.asarray(x), 1.0, reference_mean))
        for name, x in sets.items()
    }
    table = {}
    for name, values in energies.items():
        table[name] = {
            'num_images': len(values),
            'mean': float(values.mean()),
            'std': float(values.std()),
        }
        if name != 'test':
            table[name]['auroc'] = auroc(energies['test'], values)
            table[name]['auroc_reference_term'] = auroc(norms['test'], norms[name])
    return table


def auroc(inside: np.ndarray, outside: np.ndarray) -> float | None:
    """The probability that a random `outside` scores above a random `inside`; ties count half."""
    scores = np.concatenate([inside, outside])
    if not np.all(np.isfinite(scores)):
        return None
    labels = np.repeat([0, 1], [len(inside), len(outside)])
    return float(roc_auc_score(labels, scores))


def histogram(energies: dict[str, np.ndarray]) -> dict:
    """Counts of energies in common bins, from the lowest to the highest."""
    values = np.concatenate(list(energies.values()))
    edges = np.histogram_bin_edges(values[np.isfinite(values)], _NUM_BINS)
    counts = {name: np.histogram(part, edges)[0].tolist() for name, part in energies.items()}
    return {'edges': edges.tolist(), 'counts': counts}


def long_chains(key: jax.Array, states: States, config: Config) -> list[dict]:
    """Chains from ancestral samples after 0, 1, 10 and 100 times the training length.

    `energy` in nats, `distance` from the start (Euclidean, over all pixels), and `outside`, the
    share of pixels outside [-1, 1] plus headroom: means over 64 chains.
    """
    key_start, key_langevin = jax.random.split(key)
    start, _ = generate(key_start, states, config, _NUM_CHAINS, ema=False)
    num_steps, end = config.langevin.num_steps, 1.0 + config.data.headroom

    def row(x, length):
        moved = np.asarray(x - start).reshape(_NUM_CHAINS, -1)
        return {
            'steps': length * num_steps,
            'energy': float(energies_of(states, config, np.asarray(x)).mean()),
            'distance': float(np.linalg.norm(moved, axis=1).mean()),
            'outside': float(np.mean(np.abs(np.asarray(x)) > end)),
        }

    x, rows = start, [row(start, 0)]
    # In parts of equal length, so that one program is compiled.
    for done in log.tracked(range(100), 'long chains', 'training lengths', 100):
        x = refine(key_langevin, states, config, x, num_steps, done * num_steps)
        if done + 1 in (1, 10, 100):
            rows.append(row(x, done + 1))
        jax.block_until_ready(x)
    return rows


def metropolis(key: jax.Array, states: States, config: Config) -> dict:
    """Mean acceptance of a Metropolis test of the training step, from refined samples.

    Float32 energies of 1e6 nats have a resolution of 0.1; a mean over chains tolerates that.
    """
    key_start, key_noise = jax.random.split(key)
    _, refined = generate(key_start, states, config, _NUM_CHAINS, ema=False)
    step_size = config.langevin.step_size
    accepted = jax.jit(
        lambda key, x: acceptance(key, energy_of(states.energy, config), x, step_size=step_size)
    )
    return {
        'mean': float(accepted(key_noise, refined).mean()),
        'step_size': step_size,
        'num_chains': _NUM_CHAINS,
    }


def lines(found: dict) -> list[str]:
    """The result of `diagnose`, without the histogram, as lines for a terminal."""
    rows = [
        f'{"energies in nats":20s}{"images":>16s}{"mean":>16s}{"std":>16s}{"AUROC to test":>16s}'
    ]
    for name, row in found['energies'].items():
        score = row.get('auroc')
        cells = [row['num_images'], f'{row["mean"]:.4g}', f'{row["std"]:.3g}']
        cells.append('' if score is None else f'{score:.3f}')
        rows.append(f'{name:20s}' + ''.join(f'{cell:>16}' for cell in cells))
    chains = ', '.join(f'{row["energy"]:.4g} after {row["steps"]}' for row in found['long_chains'])
    return [*rows, f'energy of long chains: {chains} steps', acceptance_line(found['acceptance'])]


def acceptance_line(found: dict) -> str:
    """The result of `metropolis` in words."""
    return (
        f'a Metropolis test accepts {found["mean"]:.1%} of the steps of {found["step_size"]:g} '
        f'from {found["num_chains"]} refined samples'
    )
