"""Recoveries without a network: what a conditional model has to beat."""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import numpy as np
from PIL import Image
from scipy import linalg
from skimage.restoration import inpaint_biharmonic

from vaebm_jax.config import ConditionConfig
from vaebm_jax.data.conditions import CONDITIONS, fixed_condition, from_mask, hint_of, seen_of
from vaebm_jax.runtime import log

_SMALL = 32  # Pixels a side at which the ridge regression works.


def fills(
    condition: np.ndarray,
    config: ConditionConfig,
    train_images: np.ndarray | Iterable[np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Every fill that the kind of condition allows: `{name: [N, H, W, C]}`, seen pixels in place.

    `fill_hint` is the hint that the models start from, where it is none of the others.

    Args:
      condition: `[N, H, W, C + 1]`, by `fixed_condition`.
      config: that it was made with.
      train_images: `[M, H, W, C]` in [-1, 1], or parts of them, for the fill that learns, which is
        of holes in the middle alone: else nothing is taken of them. None: without it.
    """
    condition = np.asarray(condition)
    hint, is_seen = np.asarray(hint_of(condition)), np.asarray(seen_of(condition))
    if not is_seen.any():
        return {'fill_hint': hint}
    counts = np.maximum(is_seen.sum(axis=(1, 2), keepdims=True), 1)
    means = np.sum(hint * is_seen, axis=(1, 2), keepdims=True) / counts
    kind = CONDITIONS[config.kind]
    if kind.is_harmonic:
        harmonic = fixed_condition(hint, dataclasses.replace(config, edge_profiles=0.0))
    else:
        harmonic = from_mask(hint, is_seen[..., 0])
    filled = {
        'fill_grey': np.where(is_seen, hint, 0.0),
        'fill_mean': np.where(is_seen, hint, means),
        'fill_harmonic': np.asarray(hint_of(harmonic)),
        'fill_biharmonic': biharmonic(hint, is_seen[..., 0]),
    }
    if config.edge_profiles or not kind.is_harmonic:
        filled['fill_hint'] = hint
    if kind.is_centered and train_images is not None:
        filled['fill_ridge'] = EdgeRidge(train_images, config)(hint)
    return filled


def biharmonic(hint: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    """Scikit-image's biharmonic inpainting: smooth in its slopes too, where harmonic is in values.

    S. Damelin, N. Hoang, On surface completion and image inpainting by biharmonic functions, 2018.
    """
    pairs = log.tracked(
        zip(hint, ~is_seen, strict=True), 'biharmonic inpainting', 'images', len(hint)
    )
    filled = [inpaint_biharmonic(image, hidden, channel_axis=-1) for image, hidden in pairs]
    return np.clip(np.stack(filled), -1.0, 1.0).astype(np.float32)


class EdgeRidge:
    """A harmonic fill, the profiles of its edges, and a ridge regression of what is then missing.

    From the hint at 32 pixels a side the regression, trained on the training images and their
    mirror images, predicts what the hint lacks. For a hole in the middle. It needs two square
    matrices of 3,072 numbers a side for colour, and one part of the images at a time.
    """

    def __init__(
        self,
        images: np.ndarray | Iterable[np.ndarray],
        config: ConditionConfig,
        alpha: float = 1000.0,
    ):
        self.config = dataclasses.replace(config, edge_profiles=0.75)
        parts = [images] if isinstance(images, np.ndarray) else images
        count = 0
        for part in parts:
            hint, missing = self._small(np.concatenate([part, part[:, :, ::-1]]))
            rows = np.concatenate([hint, missing], axis=1)
            if not count:
                total, products = np.zeros(rows.shape[1]), np.zeros((hint.shape[1], rows.shape[1]))
            count += len(rows)
            total += rows.sum(axis=0)
            products += hint.T @ rows
        # The normal equations of centred rows; the intercept bears no penalty.
        size = len(products)
        self.mean, self.missing_mean = np.split(total / count, [size])
        products -= np.outer(self.mean, total)
        gram, mixed = products[:, :size], products[:, size:]
        gram[np.diag_indices(size)] += alpha
        self.weights = linalg.solve(gram, mixed, assume_a='pos', overwrite_a=True)

    def _small(self, images):
        """The hint and what it lacks at 32 pixels a side, `[N, 3072]` for colour, in float64."""
        hint, _ = self.hint(images)
        return (
            shrink(part).reshape(len(part), -1).astype(np.float64) for part in (hint, images - hint)
        )

    def hint(self, images):
        """The fill without learning, and what is seen of the images."""
        condition = jax.device_get(fixed_condition(images, self.config))
        return hint_of(condition), np.asarray(seen_of(condition))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """`[N, H, W, C]`: other images with the hole filled; its pixels do not count."""
        hint, is_seen = self.hint(images)
        missing = (shrink(hint).reshape(len(hint), -1) - self.mean) @ self.weights
        missing = (missing + self.missing_mean).reshape(-1, _SMALL, _SMALL, hint.shape[-1])
        filled = np.where(is_seen, hint, hint + resize(missing, hint.shape[1]))
        return np.clip(filled, -1.0, 1.0)


def shrink(images: np.ndarray) -> np.ndarray:
    """`[N, H, W, C]` at 32 pixels a side, by means over what a pixel covers."""
    return resize(images, _SMALL, Image.Resampling.BOX)


def resize(
    images: np.ndarray, size: int, how: Image.Resampling = Image.Resampling.BICUBIC
) -> np.ndarray:
    """Square images `[N, H, W, C]` to another size, in float32."""
    channels = np.moveaxis(np.asarray(images, np.float32), -1, 1)
    one = functools.partial(Image.Image.resize, size=(size, size), resample=how)
    planes = [np.asarray(one(Image.fromarray(plane))) for image in channels for plane in image]
    planes = np.stack(planes).reshape(*channels.shape[:2], size, size)
    return np.moveaxis(planes, 1, -1)
