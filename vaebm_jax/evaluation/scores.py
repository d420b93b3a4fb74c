"""The scores of a checkpoint's samples, and what its energy tells apart: `evaluation.json`."""

import contextlib
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable

import jax
import numpy as np

from vaebm_jax.config import Config
from vaebm_jax.data.batch import as_pixels, to_uint8
from vaebm_jax.data.loading import check_splits, first_images
from vaebm_jax.evaluation.diagnostics import diagnose, lines
from vaebm_jax.evaluation.inception import NUM_CLASSES, Weights, inception_features, load_inception
from vaebm_jax.evaluation.metrics import Moments, frechet_distance, inception_score
from vaebm_jax.evaluation.precision_recall import MAX_IMAGES, NUM_NEIGHBORS, precision_and_recall
from vaebm_jax.evaluation.sample_cache import Draws, fingerprint
from vaebm_jax.methods import METHODS, has_energy, sample_stages
from vaebm_jax.models.apply import averaged
from vaebm_jax.models.states import States
from vaebm_jax.runtime import distributed, log
from vaebm_jax.runtime.atomic_files import at_home, kept, local_folder, write_json
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.keys import branch, chain_keys
from vaebm_jax.training import checkpoints
from vaebm_jax.training.parallel import place_rows
from vaebm_jax.training.progress import say_checkpoint

_LENGTHS = {'refined': 1}  # The length of a stage's chain, in those of training; others have none.
_BATCH = 64  # Images in a call of Inception-v3, per device.
_CPU_BATCH = 8  # On a CPU: memory is reused from call to call where activations are small.
_MAX_DIAGNOSED = 1000
_FEW = 1000  # With fewer images, precision and recall are uncertain by more than 0.016.


def evaluate(
    config: Config,
    workdir: str | os.PathLike,
    *,
    num_samples: int = 10_000,
    inception_weights: str | os.PathLike | None = None,
    reference_split: str = 'train',
    num_reference: int = 10_000,
    cache: str | os.PathLike | None = None,
    step: int | None = None,
    ema: bool = True,
) -> dict:
    """Scores a checkpoint's samples and, where the method has an energy, examines it.

    Where the method has `scores` of its own, such as the bits per dimension of pixelcnn, these are
    of the samples, and of the first images of either split by the names `_train` and `_test`.

    Several processes share the drawing of samples and their features; the first does the rest.

    Args:
      config: the run's; `config.langevin` may differ.
      workdir: the run's; `evaluation.json` is written there.
      num_samples: how many, at each stage of the sampler.
      inception_weights: the file of `load_inception`; without it there are no Frechet distances,
        no precision and no recall.
      reference_split: the split of the real images that the samples are compared with.
      num_reference: how many of them, from the first on; the authors took 10,000.
      cache: the folder that keeps statistics and features of real images, named by a hash of the
        images and the weights; None: the workdir.
      step: which checkpoint; None: the newest.
      ema: draw with the averaged parameters.

    Returns:
      What `evaluation.json` holds.

    Raises:
      UserError: if there is no such checkpoint, data set or weights.
    """
    weights = load_inception(inception_weights) if inception_weights else None
    workdir = local_folder(workdir)
    states, config = checkpoints.load(workdir, step, config)
    states = averaged(states) if ema else states
    result = {'checkpoint_step': int(states.step), 'data': config.data.name, 'ema': ema}
    say_checkpoint('evaluate', result['checkpoint_step'], workdir, config)
    is_examined = has_energy(config) or METHODS[config.method].scores
    if is_examined:
        check_splits(config.data, 'train', 'test')  # Both are examined.
    if is_examined or (weights is not None and reference_split != 'train'):
        checkpoints.warn_of_seen_images(workdir, result['checkpoint_step'], config)
    stages = stages_of(config)
    draws = Draws(workdir, states, config, num_samples, tuple(stages))
    times = {}

    @contextlib.contextmanager
    def timed(work):
        began = time.perf_counter()
        yield
        times[work] = time.perf_counter() - began

    def features(part, advance=None):
        if weights is None:
            return {}
        return {
            name: features_of(weights, to_uint8(images), draws.folder, advance)
            for name, images in part.items()
        }

    def finish():
        if weights is not None:
            with timed('features of real images'):
                images = first_images(config.data, reference_split, num_reference)
                refuse_too_few(images, reference_split, '--inception_weights')
                images = to_uint8(as_pixels(images))
                reference = reference_statistics(weights, images, cache or workdir)
            about = {'reference_split': reference_split, 'reference_size': reference.count}
        kept = {name: [] for name in stages}
        with timed('drawing'):
            for part in draws:
                for name, images in part.items():
                    if sum(map(len, kept[name])) < _MAX_DIAGNOSED:
                        kept[name].append(images)
        scores = {name: Scores() for name in stages}
        if weights is not None:
            total = len(stages) * num_samples
            with (
                timed('features of samples'),
                log.counted('features of samples', 'images', total) as advance,
            ):
                for index in range(len(draws)):
                    for name, values in features(draws[index], advance).items():
                        scores[name].add(values)
        for name, lengths in stages.items():
            result[name] = {
                'num_samples': num_samples,
                'langevin_steps': lengths * config.langevin.num_steps,
            }
        if weights is not None:
            with timed('comparison with real images'):
                for name in stages:
                    result[name] |= about | scores[name].against(reference)
        samples = {name: np.concatenate(parts) for name, parts in kept.items()}
        if METHODS[config.method].scores:
            with timed("the method's own scores"):
                real = {}
                for split in ('train', 'test'):
                    images = first_images(config.data, split, _MAX_DIAGNOSED)
                    images = as_pixels(images, config.data.headroom)
                    measured = own_scores(states, config, images)
                    real |= {f'{name}_{split}': value for name, value in measured.items()}
                for name, images in samples.items():
                    result[name] |= own_scores(states, config, images) | real
        if has_energy(config):
            count = min(num_samples, _MAX_DIAGNOSED)
            with timed('diagnostics'):
                result['diagnostics'] = diagnose(states, config, samples, count)
        write_json(workdir / 'evaluation.json', result)
        draws.discard()
        shown = table(result, stages)
        if has_energy(config):
            shown += lines(result['diagnostics'])
        if weights is None:
            shown.append(
                'not measured, for there are no --inception_weights: Frechet distances, precision, '
                'recall, Inception score'
            )
        for line in shown:
            log.say(line)
        log.say('time: ' + ', '.join(f'{name} {spent:.0f} s' for name, spent in times.items()))
        log.say(f'finished: {workdir / "evaluation.json"}')
        return result

    draws.share(features)
    return distributed.agreed(finish)


def own_scores(states: States, config: Config, images: np.ndarray) -> dict[str, float]:
    """The means over images `[N, H, W, C]` of the method's `scores`."""
    key = branch(jax.random.key(config.seed, impl=config.generator), 'scores')
    keys = chain_keys(key, len(images))
    measure = jax.jit(METHODS[config.method].scores, static_argnames='config')
    count, parts = len(images), []
    for first in range(0, count, _BATCH):
        rows = np.minimum(np.arange(first, first + _BATCH), count - 1)  # One shape, one program.
        parts.append(jax.device_get(measure(keys[rows], states, config, images[rows])))
    values = {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
    return {name: float(value.mean(dtype=np.float64)) for name, value in values.items()}


def refuse_too_few(images: np.ndarray, split: str, flag: str) -> None:
    """Raises a UserError for a single image: it has no covariance and no standard error."""
    if len(images) < 2:
        raise UserError(f'{flag} needs at least 2 images of {split}, got {len(images)}')


class Scores:
    """What is gathered of a set of images to score it.

    Attributes:
      moments: the sums of the features and of their products, by the features' width.
      features: the widest features of the first `MAX_IMAGES` images, in parts `[n, D]`.
      logits: of the classes, in parts `[n, 1008]`; empty where the weights have no classifier.
    """

    def __init__(self):
        self.moments, self.features, self.logits = {}, [], []

    @property
    def count(self) -> int:
        """How many images."""
        return next(iter(self.moments.values())).count

    def add(self, features: dict[int, np.ndarray]) -> None:
        """Adds the features of some images, by width."""
        is_room = not self.moments or self.count < MAX_IMAGES
        for width, values in features.items():
            if width == NUM_CLASSES:
                self.logits.append(values)
            else:
                self.moments.setdefault(width, Moments.empty(width)).add(values)
        if is_room:
            self.features.append(features[max(self.moments)])

    def against(self, reference: 'Scores') -> dict:
        """The scores by name; `warning` where there are too few images for one of them.

        Precision and recall are computed on the widest features of the first images, the same
        number of either set.
        """
        result, warnings = {}, []
        for width, moments in self.moments.items():
            name = 'fid' if width == 2048 else f'fd_{width}'
            result[name] = frechet_distance(moments, reference.moments[width])
        if self.logits:
            logits = np.concatenate(self.logits)
            result['inception_score'], result['inception_score_std'] = inception_score(logits)
        widest, count = max(self.moments), min(self.count, reference.count)
        if count <= widest:
            warnings.append(
                f'{count} images are too few for {widest} features: their covariance is singular, '
                f'and the distance is too large; take more than {widest}'
            )
        if count > NUM_NEIGHBORS:
            first = min(count, MAX_IMAGES)
            sets = (np.concatenate(scores.features)[:first] for scores in (self, reference))
            result['precision'], result['recall'] = precision_and_recall(*sets)
            if count < _FEW:
                warnings.append(
                    f'precision and recall of {count} images are uncertain by up to '
                    f'{0.5 / np.sqrt(count):.2g}; take {_FEW:,} or more'
                )
        else:
            warnings.append(
                f'precision and recall need at least {NUM_NEIGHBORS + 1} images, got {count}'
            )
        return result | ({'warning': '; '.join(warnings)} if warnings else {})


def features_of(
    weights: Weights,
    images: np.ndarray,
    folder: pathlib.Path | None = None,
    advance: Callable[..., None] | None = None,
    keep: Callable[..., dict[str, np.ndarray]] = kept,
) -> dict[int, np.ndarray]:
    """Inception features of uint8 images, by width, computed on all local devices.

    Args:
      weights: of `load_inception`.
      images: `[N, H, W, C]`, uint8.
      folder: keeps the features under a hash of weights and images; None: nothing is kept.
      advance: of `log.counted`; is told how many images are done.
      keep: `atomic_files.kept`, or a function with its signature.
    """
    advance = advance or (lambda count, cached=False: None)
    devices = jax.local_devices()
    size = min(_BATCH, _CPU_BATCH) if devices[0].platform == 'cpu' else _BATCH
    size *= len(devices)
    done = 0

    def compute():
        nonlocal done
        parts = []
        for first in range(0, len(images), size):
            batch = images[first : first + size]
            rows = np.pad(batch, [(0, size - len(batch))] + [(0, 0)] * 3)
            features = inception_features(weights, place_rows(rows, devices))
            parts.append({str(k): np.asarray(v)[: len(batch)] for k, v in features.items()})
            advance(len(batch))
            done += len(batch)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    if folder is None:
        features = compute()
    else:
        features = keep(folder / f'features-{_fingerprint(weights, images)}.npz', compute)
        advance(len(images) - done, cached=True)
    return {int(name): values for name, values in features.items()}


def reference_statistics(weights: Weights, images: np.ndarray, cache: str | os.PathLike) -> Scores:
    """The `Scores` of real images without logits, kept in `cache` by a hash of weights and images.

    Where the cache cannot be written, they are computed all the same, and one line says so.
    """
    # Earlier versions wrote files named `reference-`, with the moments alone.
    path = at_home(cache) / f'real-images-{_fingerprint(weights, images)}.npz'
    parts = path.with_suffix('.parts')
    is_said = False

    def keep(path, make):
        nonlocal is_said
        made = []
        try:
            return kept(path, lambda: made.append(make()) or made[0])
        except UserError as error:
            if not made:
                raise
            if not is_said:
                log.say(f'statistics of real images are not cached: {error}')
            is_said = True
            return made[0]

    def compute():
        scores, size, total = Scores(), 8 * _BATCH, len(images)
        with log.counted('features of real images', 'images', total) as advance:
            for first in range(0, total, size):
                scores.add(features_of(weights, images[first : first + size], parts, advance, keep))
        return {'features': np.concatenate(scores.features)[:MAX_IMAGES]} | {
            f'{name}_{width}': np.asarray(getattr(moments, name))
            for width, moments in scores.moments.items()
            for name in ('count', 'total', 'products')
        }

    arrays = keep(path, compute)
    shutil.rmtree(parts, ignore_errors=True)
    scores = Scores()
    scores.features = [arrays.pop('features')]
    for width in sorted({int(name.split('_')[1]) for name in arrays}):
        scores.moments[width] = Moments(
            int(arrays[f'count_{width}']), arrays[f'total_{width}'], arrays[f'products_{width}']
        )
    return scores


def _fingerprint(weights, images):
    return fingerprint((weights, images))[:24]


def stages_of(config: Config) -> dict[str, int]:
    """The stages of the sampler that are scored, and each one's steps in lengths of training's."""
    names = sample_stages(config)
    lengths = {name: _LENGTHS.get(name, 0) for name in names}
    return lengths | ({'refined_2x': 2} if 'refined' in names else {})


def table(result: dict, stages: Iterable[str]) -> list[str]:
    """The scores as lines of text, one column per stage; a cell is blank where there is none."""
    stages = list(stages)
    warnings = [result[stage].get('warning') for stage in stages]
    names = dict.fromkeys(name for stage in stages for name in result[stage])
    names.pop('warning', None)
    lines = [f'{"":20s}' + ''.join(f'{stage:>16s}' for stage in stages)]
    for name in names:
        values = [result[stage].get(name, '') for stage in stages]
        cells = [f'{v:16.4g}' if isinstance(v, float) else f'{v!s:>16s}' for v in values]
        lines.append(f'{name:20s}' + ''.join(cells))
    lines += [f'warning: {warning}' for warning in dict.fromkeys(filter(None, warnings))]
    return lines
