"""Fills without a network: the baselines of a conditional model."""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import numpy as np
from PIL import Image
from scipy import linalg
from skimage.restoration import inpaint_biharmonic

from vaebm_jax.config import ConditionConfig
from vaebm_jax.data.conditions import CONDITIONS, fill_of, fixed_condition, from_mask, observed_of
from vaebm_jax.runtime import log

_SMALL = 32  # Pixels per side of the ridge regression's images.


def fills(
    condition: np.ndarray,
    config: ConditionConfig,
    train_images: np.ndarray | Iterable[np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """All fills for the kind of condition: `{name: [N, H, W, C]}`, observed pixels in place.

    `fill_hint` is the models' initial fill, if it is none of the others.

    Args:
      condition: `[N, H, W, C + 1]`, by `fixed_condition`.
      config: of the condition.
      train_images: `[M, H, W, C]` in [-1, 1], or parts of them, for the ridge regression, which is
        only for holes in the middle: else they are not read. None: without it.
    """
    condition = np.asarray(condition)
    hint, is_observed = np.asarray(fill_of(condition)), np.asarray(observed_of(condition))
    if not is_observed.any():
        return {'fill_hint': hint}
    counts = np.maximum(is_observed.sum(axis=(1, 2), keepdims=True), 1)
    means = np.sum(hint * is_observed, axis=(1, 2), keepdims=True) / counts
    kind = CONDITIONS[config.kind]
    if kind.is_harmonic:
        harmonic = fixed_condition(hint, dataclasses.replace(config, edge_profiles=0.0))
    else:
        harmonic = from_mask(hint, is_observed[..., 0])
    filled = {
        'fill_grey': np.where(is_observed, hint, 0.0),
        'fill_mean': np.where(is_observed, hint, means),
        'fill_harmonic': np.asarray(fill_of(harmonic)),
        'fill_biharmonic': biharmonic(hint, is_observed[..., 0]),
    }
    if config.edge_profiles or not kind.is_harmonic:
        filled['fill_hint'] = hint
    if kind.is_centered and train_images is not None:
        filled['fill_ridge'] = EdgeRidge(train_images, config)(hint)
    return filled


def biharmonic(hint: np.ndarray, is_observed: np.ndarray) -> np.ndarray:
    """Scikit-image's biharmonic inpainting, which has smooth slopes as well as values.

    S. Damelin, N. Hoang, On surface completion and image inpainting by biharmonic functions, 2018.
    """
    pairs = log.tracked(
        zip(hint, ~is_observed, strict=True), 'biharmonic inpainting', 'images', len(hint)
    )
    filled = [inpaint_biharmonic(image, missing, channel_axis=-1) for image, missing in pairs]
    return np.clip(np.stack(filled), -1.0, 1.0).astype(np.float32)


class EdgeRidge:
    """A harmonic fill with edge profiles, and a ridge regression of its residual.

    From the initial fill at 32 pixels per side the regression, trained on the training images and
    their mirror images, predicts the residual. For a hole in the middle. It needs two square
    matrices of 3,072 numbers per side for colour, and one part of the images at a time.
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
        # The normal equations of centred rows; the intercept has no penalty.
        size = len(products)
        self.mean, self.missing_mean = np.split(total / count, [size])
        products -= np.outer(self.mean, total)
        gram, mixed = products[:, :size], products[:, size:]
        gram[np.diag_indices(size)] += alpha
        self.weights = linalg.solve(gram, mixed, assume_a='pos', overwrite_a=True)

    def _small(self, images):
        """The initial fill and its residual at 32 pixels per side, `[N, 3072]` for colour."""
        hint, _ = self.hint(images)
        return (
            shrink(part).reshape(len(part), -1).astype(np.float64) for part in (hint, images - hint)
        )

    def hint(self, images):
        """The initial fill, and the mask of observed pixels."""
        condition = jax.device_get(fixed_condition(images, self.config))
        return fill_of(condition), np.asarray(observed_of(condition))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """`[N, H, W, C]`: other images with the hole filled; pixels in the hole are ignored."""
        hint, is_observed = self.hint(images)
        missing = (shrink(hint).reshape(len(hint), -1) - self.mean) @ self.weights
        missing = (missing + self.missing_mean).reshape(-1, _SMALL, _SMALL, hint.shape[-1])
        filled = np.where(is_observed, hint, hint + resize(missing, hint.shape[1]))
        return np.clip(filled, -1.0, 1.0)


def shrink(images: np.ndarray) -> np.ndarray:
    """`[N, H, W, C]` at 32 pixels per side, by means over the area of a pixel."""
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
