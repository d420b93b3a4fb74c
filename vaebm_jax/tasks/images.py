"""Runs on images: previews, and --mode=sample, which writes pictures and arrays of samples."""

import os
import pathlib
import shutil
from collections.abc import Callable

import jax
import numpy as np

from vaebm_jax.config import Config
from vaebm_jax.data.batch import as_pixels
from vaebm_jax.data.loading import first_images, in_words
from vaebm_jax.evaluation.sample_cache import Draws
from vaebm_jax.figures import grids
from vaebm_jax.figures.grids import Picture
from vaebm_jax.figures.outputs import QUALITY, image_format, output_paths
from vaebm_jax.methods import has_energy, sample_stages
from vaebm_jax.methods.generate import generate, generate_by, interpolate, reconstruct, revision
from vaebm_jax.models.apply import averaged
from vaebm_jax.runtime import distributed, log
from vaebm_jax.runtime.atomic_files import local_folder, make_folder, whole_file, written
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training import checkpoints
from vaebm_jax.training.progress import say_checkpoint

PICTURES = {
    'grid.png': Picture('Samples: {stages}'),
    'revision.png': Picture('', 'The Langevin chain: one row per sample, from left to right'),
    'interpolation.png': Picture(
        'Between two samples of z: decoded', ', and refined', roles=('decoder',)
    ),
    'reconstruction.png': Picture(
        'Images, of the split that the picture names, and their reconstructions',
        roles=('encoder', 'decoder'),
    ),
}

_SHOWN = 64  # Samples in a grid.
_NUM_ROWS = 8
_NUM_POINTS = 10  # Of an interpolation.
_NUM_FRAMES = 11  # Of a filmstrip, at most.


def preview(config: Config) -> Callable[..., None]:
    """The function that draws samples during training, a `loop.Preview`."""

    def draw(path, keys, states):
        drawn = generate_by(keys, states, config, _SHOWN)
        grids.side_by_side(path, dict(zip(grids.captions(config), drawn, strict=True)))

    return draw


def sample(
    config: Config,
    workdir: str | os.PathLike,
    *,
    num_samples: int = 1_000,
    step: int | None = None,
    ema: bool = True,
    interpolation: str = 'linear',
) -> None:
    """Samples a checkpoint: pictures, and samples as arrays and as PNG files.

    Several processes share the sampling; process 0 does the rest.

    Writes to `<workdir>/samples`: `grid.png` (the first 64 of each stage), `interpolation.png`,
    `revision.png` (one row per sample, the chain from left to right), `reconstruction.png` (test
    images above their reconstructions), `ancestral.npz` and `refined.npz` (`images`, `[N, H, W, C]`
    float32) and the folders `ancestral` and `refined` of 8-bit PNG files. A method has files of its
    own stages; without an energy there is no `revision.png`, without a decoder no
    `interpolation.png`, without an encoder no `reconstruction.png`.

    Args:
      config: of the run; `config.langevin` may differ from it.
      workdir: of the run.
      num_samples: N.
      step: of the checkpoint; None: the newest.
      ema: use the averaged parameters.
      interpolation: between two samples of z: linear, on a straight line, or spherical, on an arc.

    Raises:
      UserError: if there is no such checkpoint, or the folder cannot be written to.
    """
    states, config = checkpoints.load(workdir, step, config)
    states = averaged(states) if ema else states
    folder = local_folder(workdir) / 'samples'
    say_checkpoint('sample', int(states.step), workdir, config)
    stages = tuple(sample_stages(config))
    draws = Draws(local_folder(workdir), states, config, num_samples, stages)
    log.say('compiling and drawing ...')
    draws.share(lambda part: None)

    def finish():
        shown = {name: images[:_SHOWN] for name, images in draws[0].items()}
        log.say('pictures ...')
        names = write_pictures(states, config, folder, shown, interpolation == 'spherical')
        write_samples(draws, folder)
        discard_others(folder, config)
        log.say(
            f'finished: {folder}/{", ".join(names)}; {num_samples:,} images each in '
            f'{", ".join(f"{name}.npz" for name in stages)} and folders of PNGs'
        )

    distributed.agreed(finish)


def draw(
    config: Config,
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    *,
    num_samples: int = 64,
    step: int | None = None,
    ema: bool = True,
) -> None:
    """Draws samples of the last stage into one picture, a square grid; writes nothing else.

    Args:
      config: of the run.
      workdir: of the run, or `pretrained:NAME`.
      output: an image in the format of its suffix.
      num_samples: how many; a grid has the largest square number of them.
      step: of the checkpoint; None: the newest.
      ema: use the averaged parameters.

    Raises:
      UserError: if there is no such checkpoint, or the file cannot be written.
    """
    (path,) = output_paths(output, 1)
    states, config = checkpoints.load(workdir, step, config)
    say_checkpoint('sample', int(states.step), workdir, config)
    key = jax.random.key(config.seed, impl=config.generator)
    _, images = generate(key, states, config, num_samples, ema)
    with written(path):
        make_folder(path.parent)
    with whole_file(path) as file:
        grids.grid(images).save(file, image_format(path), quality=QUALITY)
    captions = grids.captions(config)
    log.say(f'finished: {path}: {", ".join(captions[1:] or captions)}')


def write_samples(draws: Draws, folder: pathlib.Path) -> None:
    """Writes the samples as arrays and as PNG files; then deletes their cached parts."""
    parts = list(draws)
    for name in draws.stages:
        images = np.concatenate([part[name] for part in parts])
        with whole_file(folder / f'{name}.npz') as file:
            np.savez(file, images=images)
        shutil.rmtree(folder / name, ignore_errors=True)
        width = len(str(len(images) - 1))
        for index, image in enumerate(log.tracked(images, f'{name} PNGs', 'files', len(images))):
            grids.save(folder / name / f'{index:0{width}d}.png', image)
    draws.discard()


def discard_others(folder: pathlib.Path, config: Config) -> None:
    """Deletes old files of refined samples if the method has no energy."""
    if not has_energy(config):
        for name in ('refined.npz', 'revision.png'):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / 'refined', ignore_errors=True)


def write_pictures(states, config, folder, drawn, spherical):
    """Writes the pictures, returns their names; `states` have the parameters as `params`.

    `drawn` are samples of each stage, for `grid.png`.
    """
    key = jax.random.key(config.seed, impl=config.generator)
    names = ['grid.png']
    captions = grids.captions(config)
    grids.side_by_side(folder / 'grid.png', dict(zip(captions, drawn.values(), strict=True)))

    if 'decoder' in states.models:
        decoded, refined = interpolate(key, states, config, _NUM_ROWS, _NUM_POINTS, spherical)
        way = 'on the arc' if spherical else 'on the line'
        tables = {f'decoded, z {way} between two samples': decoded}
        if has_energy(config):
            tables[captions[-1]] = refined
        grids.side_by_side(folder / 'interpolation.png', tables)
        names.append('interpolation.png')

    if has_energy(config):
        film = revision(key, states, config, _NUM_ROWS)
        frames = np.linspace(0, config.langevin.num_steps, _NUM_FRAMES).round().astype(int)
        frames = np.unique(frames)
        caption = 'the chain after ' + ', '.join(map(str, frames)) + ' steps'
        grids.side_by_side(
            folder / 'revision.png', {caption: np.asarray(film[frames]).swapaxes(0, 1)}
        )
        names.append('revision.png')

    if not {'encoder', 'decoder'} <= states.models.keys():
        return names
    try:
        images = first_images(config.data, 'test', 32)
    except UserError as error:
        log.say(f'no reconstructions: {error}')
        return names
    images = as_pixels(images, config.data.headroom)
    rebuilt = reconstruct(states, images)
    rows = [row for pair in zip(_rows(images), _rows(rebuilt), strict=True) for row in pair]
    grids.side_by_side(
        folder / 'reconstruction.png',
        {f'{in_words(config.data, "test")}, rows above their reconstructions': np.stack(rows)},
    )
    return [*names, 'reconstruction.png']


def _rows(images):
    """`[N, ...]` in rows of eight, without the rest."""
    images = np.asarray(images)
    width = min(8, len(images))
    return images[: len(images) // width * width].reshape(-1, width, *images.shape[1:])
