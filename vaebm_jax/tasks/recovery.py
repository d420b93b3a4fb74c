"""Runs with a condition: recoveries drawn, scored, and computed for a user's photograph."""

import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image

from vaebm_jax.config import Config
from vaebm_jax.data.batch import as_pixels, to_uint8
from vaebm_jax.data.conditions import CONDITIONS, fill_of, fixed_condition, observed_of
from vaebm_jax.data.image_files import read_image, read_opacity
from vaebm_jax.data.loading import first_images, held_out, image_parts
from vaebm_jax.evaluation.fills import fills
from vaebm_jax.evaluation.inception import load_inception
from vaebm_jax.evaluation.metrics import SSIM_WINDOW, psnr, ssim
from vaebm_jax.evaluation.scores import Scores, features_of, refuse_too_few, table
from vaebm_jax.figures import grids
from vaebm_jax.figures.grids import Picture
from vaebm_jax.figures.outputs import QUALITY, image_format, output_paths
from vaebm_jax.methods import has_energy, sample_stages, untrained_energy
from vaebm_jax.methods.generate import recover, recover_by
from vaebm_jax.models.states import States
from vaebm_jax.runtime import log
from vaebm_jax.runtime.atomic_files import (
    at_home,
    local_folder,
    make_folder,
    whole_file,
    write_json,
    written,
)
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks.images import discard_others
from vaebm_jax.training import checkpoints
from vaebm_jax.training.progress import say_checkpoint

PICTURES = {
    'recovery.png': Picture(
        'Recoveries: observed pixels, an ancestral sample, recoveries, their mean and deviation, '
        'and the truth',
        more='; the recoveries are refined',
    )
}

_NUM_ROWS = 8
_NUM_SHOWN = 4  # Recoveries of an image.
_BLACK, _WHITE = 31, 224  # A mask is black up to and white from these values.
_MOST = 0.55  # A mask that is white in more of the photograph may be inverted.
_MAX_SOFT = 0.01  # Share of a mask's pixels in between.
_PROTOCOL = (
    'outputs rounded to 8 bits, observed pixels in place; means over images; psnr with the full '
    f'range of 255; ssim with a Gaussian window of {SSIM_WINDOW} pixels (sigma 1.5) and that '
    'range; _hole: over missing pixels; fd: of '
)


def preview(config: Config) -> Callable[..., None]:
    """The function that draws recoveries of held-out images during training, a `loop.Preview`.

    If no image is held out one line says so, and nothing is drawn.
    """
    try:
        images = first_images(config.data, held_out(config.data), _NUM_ROWS)
    except UserError as error:
        log.say(f'warning: no pictures of recoveries will be drawn: no image is held out: {error}')
        return lambda path, keys, states: None
    truth = as_pixels(images)

    def draw(path, keys, states):
        condition = fixed_condition(truth, config.condition)
        draw_rows(path, condition, *recover_by(keys, states, config, condition, _NUM_SHOWN), truth)

    return draw


def evaluate_recovery(
    config: Config,
    workdir: str | os.PathLike,
    *,
    num_samples: int | None = None,
    num_recoveries: int = 16,
    inception_weights: str | os.PathLike | None = None,
    split: str = 'test',
    step: int | None = None,
    ema: bool = True,
) -> dict:
    """Scores a checkpoint's recoveries and fills without a network: `evaluation.json`.

    The stages are `ancestral` (one per image), `refined` (the same refined), `mean` of an image's
    refined recoveries, `mean_ancestral` of its ancestral ones, `best` of the refined ones by PSNR
    in the hole, and every `fill_<name>`. Frechet distances, precision and recall compare recovered
    and true holes, cut out if all have one size. A method without an energy has `ancestral`, the
    `mean` of the ancestral recoveries and the `best` of them.

    Args:
      config: of the run; `config.langevin` and the condition's kind may differ from it.
      workdir: of the run; `evaluation.json` is written there.
      num_samples: number of images, from the first on; None: all of the split.
      num_recoveries: K per image.
      inception_weights: the file of `load_inception`; None: no Frechet distances,
        precision or recall.
      split: train, val or test.
      step: of the checkpoint; None: the newest.
      ema: use the averaged parameters.

    Returns:
      The content of `evaluation.json`.

    Raises:
      UserError: if there is no such checkpoint, data set or weights.
    """
    weights = load_inception(inception_weights) if inception_weights else None
    workdir = local_folder(workdir)
    states, config = checkpoints.load(workdir, step, config)
    truth = as_pixels(first_images(config.data, split, num_samples))
    if weights is not None:
        refuse_too_few(truth, split, '--inception_weights')
    condition = jax.device_get(fixed_condition(truth, config.condition))
    step = int(states.step)
    say_checkpoint('evaluate', step, workdir, config)
    if split != 'train':
        checkpoints.warn_of_seen_images(workdir, step, config)
    log.say(f'data: {len(truth)} images of {split}')
    train_images = map(as_pixels, image_parts(config.data, 'train'))
    completed = fills(condition, config.condition, train_images)
    drawn, deviations = recoveries(states, config, condition, truth, num_recoveries, ema)
    completed = drawn | completed

    region = missing(condition)
    cut = holes(region)
    reference = Scores()
    if weights is not None:
        reference.add(features_of(weights, cut(to_uint8(truth))))
    result = {
        'checkpoint_step': step,
        'data': config.data.name,
        'split': split,
        'condition': config.condition.kind,
        'ema': ema,
        'num_recoveries': num_recoveries,
        'protocol': _PROTOCOL + compared(region),
    }
    for name, images in completed.items():
        images = to_uint8(images)
        result[name] = {'num_samples': len(images)} | fidelity(truth, as_pixels(images), region)
        if weights is not None:
            scores = Scores()
            scores.add(features_of(weights, cut(images)))
            result[name] |= scores.against(reference)
    for name, value in deviations.items():
        result[name]['deviation'] = value
    write_json(workdir / 'evaluation.json', result)
    for line in table(result, tuple(completed)):
        log.say(line)
    log.say(f'finished: {workdir / "evaluation.json"}')
    return result


def recoveries(
    states: States,
    config: Config,
    condition: np.ndarray,
    truth: np.ndarray,
    num_recoveries: int,
    ema: bool = True,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Recoveries by each stage, one image per condition, and the `deviation` of the drawn ones.

    Returns:
      `{stage: [N, H, W, C]}`, and `{stage: deviation}` for ancestral and refined recoveries.
    """
    key = jax.random.key(config.seed, impl=config.generator)
    drawing = _tracked(len(condition) * num_recoveries)
    ancestral, refined = recover(key, states, config, condition, num_recoveries, ema, drawing)
    region = missing(condition)
    scores = [psnr(truth, refined[:, k], region) for k in range(num_recoveries)]
    best = np.argmax(scores, axis=0)
    drawn = {
        'ancestral': ancestral[:, 0],
        'refined': refined[:, 0],
        'mean': refined.clip(-1.0, 1.0).mean(axis=1),
        'mean_ancestral': ancestral.clip(-1.0, 1.0).mean(axis=1),
        'best': refined[np.arange(len(best)), best],
    }
    deviations = {
        'ancestral': deviation(ancestral, region),
        'refined': deviation(refined, region),
    }
    if not has_energy(config):  # The ancestral and their mean, a second time.
        del drawn['refined'], drawn['mean_ancestral'], deviations['refined']
    return drawn, deviations


def deviation(images: np.ndarray, region: np.ndarray) -> float:
    """How much recoveries of one image differ: a pixel's standard deviation over them, on average.

    Args:
      images: `[N, K, H, W, C]`, K recoveries each; clipped to [-1, 1].
      region: `[N, H, W]` bool: the pixels to average over.
    """
    return float(images.clip(-1.0, 1.0).std(axis=1)[region].mean())


def _tracked(num_recoveries):
    """Shows the progress of `recover`."""
    return lambda firsts: log.tracked(firsts, 'drawing', 'recoveries', num_recoveries, firsts.step)


def fidelity(truth: np.ndarray, images: np.ndarray, region: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM of images `[N, H, W, C]`, in a region `[N, H, W]` and overall."""
    values = {'psnr_hole': psnr(truth, images, region), 'psnr': psnr(truth, images)}
    if min(truth.shape[1:3]) >= SSIM_WINDOW:
        values |= {'ssim_hole': ssim(truth, images, region), 'ssim': ssim(truth, images)}
    return {name: float(value.mean()) for name, value in values.items()}


def missing(condition: np.ndarray) -> np.ndarray:
    """`[N, H, W]` bool: the missing pixels."""
    return ~np.asarray(observed_of(condition))[..., 0]


def holes(region: np.ndarray):
    """A function that crops images to the boxes around their missing pixels, if of equal size."""
    boxes = boxes_of(region)
    if boxes is None:
        return lambda images: images
    return lambda images: np.stack([image[box] for image, box in zip(images, boxes, strict=True)])


def compared(region: np.ndarray) -> str:
    """In words, the parts of outputs and true images that a Frechet distance compares."""
    boxes = boxes_of(region)
    if boxes is None:
        return 'complete outputs and the same images, since the boxes around holes differ in size'
    is_full = all(part[box].all() for part, box in zip(region, boxes, strict=True))
    what = 'the missing pixels' if is_full else 'the boxes around the missing pixels'
    return f'{what} of outputs and of the same images'


def boxes_of(region: np.ndarray) -> list[tuple[slice, slice]] | None:
    """The boxes around each image's missing pixels, `[N, H, W]` bool; None: they differ in size."""
    boxes = []
    for part in region:
        rows, columns = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
        boxes.append((slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)))
    sizes = {tuple(side.stop - side.start for side in box) for box in boxes}
    return boxes if len(sizes) == 1 else None


def sample_recoveries(
    config: Config,
    workdir: str | os.PathLike,
    *,
    num_samples: int = 20,
    num_recoveries: int = 16,
    split: str = 'test',
    step: int | None = None,
    ema: bool = True,
) -> None:
    """Samples a conditional checkpoint: a picture, and the recoveries as arrays.

    Writes to `<workdir>/samples`: `recovery.png`, and `ancestral.npz`, `refined.npz` (`images`,
    `[N, K, H, W, C]` float32), the latter if the method has an energy.

    Args:
      config: of the run; `config.langevin` may differ from it.
      workdir: of the run.
      num_samples: N images, from the first of the split on, or all if there are fewer.
      num_recoveries: K per image.
      split: train, val or test.
      step: of the checkpoint; None: the newest.
      ema: use the averaged parameters.
    """
    states, config = checkpoints.load(workdir, step, config)
    folder = local_folder(workdir) / 'samples'
    say_checkpoint('sample', int(states.step), workdir, config)
    truth = as_pixels(first_images(config.data, split, num_samples))
    condition = jax.device_get(fixed_condition(truth, config.condition))
    key = jax.random.key(config.seed, impl=config.generator)
    drawing = _tracked(len(condition) * num_recoveries)
    drawn = recover(key, states, config, condition, num_recoveries, ema, drawing)
    names = tuple(sample_stages(config))
    stages = dict.fromkeys((names[0], names[-1]))  # Those of `drawn`.
    for name, images in zip(stages, drawn, strict=False):
        with whole_file(folder / f'{name}.npz') as file:
            np.savez(file, images=images)
    draw_rows(folder / 'recovery.png', condition, *drawn, truth)
    discard_others(folder, config)
    log.say(
        f'finished: {folder}/recovery.png; {num_recoveries} recoveries each of {len(truth)} images '
        f'of {split} in {" and ".join(f"{name}.npz" for name in stages)}'
    )


def draw_rows(
    path: pathlib.Path,
    condition: np.ndarray,
    ancestral: np.ndarray,
    refined: np.ndarray,
    truth: np.ndarray,
) -> None:
    """One row per image: observed, ancestral, recoveries, their mean, deviation, and truth."""
    show = slice(0, _NUM_ROWS)
    condition, truth = condition[show], truth[show]
    is_observed = np.asarray(observed_of(condition))
    observed = np.asarray(fill_of(condition))
    if is_observed.any():
        observed = np.where(is_observed, observed, 0.0)
    # Black where all recoveries agree, white where they differ by half of the range.
    deviation = refined[show].std(axis=1).mean(axis=-1, keepdims=True)
    deviation = np.broadcast_to(np.minimum(2.0 * deviation, 1.0) * 2.0 - 1.0, truth.shape)
    grids.side_by_side(
        path,
        {
            'observed': observed[:, None],
            'ancestral': ancestral[show, :1],
            'recoveries': refined[show, :_NUM_SHOWN],
            'mean': refined[show].clip(-1.0, 1.0).mean(axis=1)[:, None],
            'deviation': deviation[:, None],
            'truth': truth[:, None],
        },
    )


def recover_file(
    config: Config,
    workdir: str | os.PathLike,
    *,
    input_file: str,
    mask_file: str | None,
    output_file: str,
    num_recoveries: int = 1,
    step: int | None = None,
    ema: bool = True,
) -> None:
    """Recovers the masked part of a photograph, or its colours or detail.

    The photograph is resized to the model's size and the recovery back to the photograph's;
    observed pixels are those of the photograph.

    Args:
      config: of the run.
      workdir: of the run.
      input_file: the photograph, about square and at least half as large as the model's images.
      mask_file: of the photograph's size, white where it is to be recovered and black elsewhere,
        or transparent where it is to be recovered, as a photograph with a hole erased in an editor
        is; None for models of grey or small images.
      output_file: an image in the format of its suffix, PNG, JPEG or another that Pillow writes;
        with several recoveries their numbers are added to its name, before the suffix.
      num_recoveries: number of recoveries.
      step: of the checkpoint; None: the newest.
      ema: use the averaged parameters.

    Raises:
      UserError: for a file that cannot be read or written, or has another size, and if an output
        is the photograph or the mask itself.
    """
    if config.data.num_channels not in (1, 3):
        raise UserError(
            '--mode=recover needs a run on images of 1 or 3 channels, as photographs have, got '
            f'data.num_channels {config.data.num_channels}'
        )
    outputs = output_paths(output_file, num_recoveries)
    refuse_to_overwrite(outputs, input=input_file, mask=mask_file)
    states, config = checkpoints.load(workdir, step, config)
    size, channels = config.data.image_size, config.data.num_channels
    photo = read_file('input', input_file, channels, config.data.white_level)
    width, height = photo.size
    if min(width, height) < size / 2 or max(width, height) > 1.25 * min(width, height):
        raise UserError(
            f'--input must be about square and at least {size // 2} pixels a side (the model has '
            f'{size}x{size}), got {width}x{height}: {input_file}'
        )
    kind = CONDITIONS[config.condition.kind]
    if kind.hides_pixels != (mask_file is not None):
        needed = 'must name a file for' if kind.hides_pixels else 'has no meaning for'
        raise UserError(f'--mask {needed} a model of condition.kind {config.condition.kind}')
    image = as_array(photo.resize((size, size), Image.Resampling.LANCZOS), channels)
    if kind.hides_pixels:
        mask = read_mask(mask_file)
        if mask.size != photo.size:
            raise UserError(
                f'--mask must be of the size of --input, {width}x{height}, got '
                f'{mask.width}x{mask.height}: {mask_file}'
            )
        is_observed = np.asarray(mask) < 128
        # A pixel of the small image is observed if all pixels that it covers are.
        small = np.asarray(mask.resize((size, size), Image.Resampling.BOX))
        if is_observed.all() or not (small == 0).any():
            raise UserError(
                '--mask must be white where the photograph is to be recovered and black elsewhere; '
                f'all of it is {"black" if is_observed.all() else "white"}: {mask_file}'
            )
        if (share := np.mean(~is_observed)) > _MOST:
            log.say(
                f'warning: --mask is white in {share:.0%} of the photograph, all of which is made '
                'up; if it was to be kept, the mask is inverted'
            )
        condition = kind.of_mask(image, small == 0, config.condition)
    else:
        is_observed = np.zeros((height, width), bool)
        condition = fixed_condition(image[None], config.condition)
    if warning := untrained_energy(int(states.step), config):
        log.say(warning)
    key = jax.random.key(config.seed, impl=config.generator)
    _, refined = recover(key, states, config, np.asarray(condition), num_recoveries, ema)
    suffix = image_format(outputs[0])
    with written(outputs[0]):
        make_folder(outputs[0].parent)
    for output, recovery in zip(outputs, to_uint8(refined[0]), strict=True):
        result = Image.fromarray(recovery[..., 0] if channels == 1 else recovery)
        if photo.size != result.size:
            result = result.resize(photo.size, Image.Resampling.BICUBIC)
        result.paste(photo, mask=Image.fromarray(np.uint8(255 * is_observed)))
        with whole_file(output) as file:
            result.save(file, suffix, quality=QUALITY)
    log.say(f'finished: {", ".join(map(str, outputs))}')


def refuse_to_overwrite(outputs: list[pathlib.Path], **inputs: str | None) -> None:
    """Raises a UserError if an output is the file of another flag, by any name or link."""
    for flag, name in inputs.items():
        file = at_home(name) if name else None
        for output in outputs:
            if file and file.exists() and output.exists() and output.samefile(file):
                raise UserError(
                    f'--output must name another file than --{flag}, got {str(output)!r} for {name}'
                )


def read_file(flag: str, path: str, num_channels: int, white_level: int = 0) -> Image.Image:
    """The image in the file of a flag."""
    try:
        return read_image(at_home(path), num_channels, white_level)
    except UserError as error:
        raise UserError(f'--{flag} must name an image: {error}') from error


def read_mask(path: str) -> Image.Image:
    """The mask in a file: 255 where a photograph is to be recovered, 0 elsewhere.

    If the file has transparent parts, these are to be recovered, for any colours; else the white
    parts.

    Raises:
      UserError: for a file that is not an image, or in which more than 1 % of the pixels are
        neither black nor white (from 32 to 223 of 255: JPEG softens edges), or, in a file with
        transparency, neither transparent nor opaque. Also for white drawn on a transparent
        background, which is ambiguous.
    """
    colours = np.asarray(read_file('mask', path, 1))
    opacity = read_opacity(at_home(path))
    if opacity.max() <= _BLACK or opacity.min() >= _WHITE:
        values, kinds = colours, 'black or white'
    else:
        values, kinds = 255 - opacity, 'transparent or opaque'
    if (share := _soft_share(values)) > _MAX_SOFT:
        raise UserError(
            '--mask must be white where the photograph is to be recovered and black elsewhere, or '
            f'transparent there, but {share:.0%} of its pixels are not {kinds}: {path}'
        )
    drawn = colours[opacity >= _WHITE]
    if values is not colours and _soft_share(drawn) <= _MAX_SOFT and (drawn >= _WHITE).any():
        raise UserError(
            '--mask must be white, or else transparent, where the photograph is to be recovered, '
            'but parts are white and others transparent; save it in black and white without '
            f'transparency: {path}'
        )
    return Image.fromarray(np.uint8(255 * (values >= 128)))


def _soft_share(values):
    """The share of 8-bit values that are neither black nor white."""
    return np.mean((values > _BLACK) & (values < _WHITE))


def as_array(image: Image.Image, channels: int) -> np.ndarray:
    """`[H, W, C]` in [-1, 1]."""
    return as_pixels(np.asarray(image, np.uint8).reshape(image.height, image.width, channels))
