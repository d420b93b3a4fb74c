"""Scores of images and of their features, without networks or files."""

import dataclasses

import numpy as np

SSIM_WINDOW = 11  # Pixels: 3.5 deviations of 1.5 on each side.


@dataclasses.dataclass
class Moments:
    """Sums over features of any number of images, in float64."""

    count: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def empty(cls, width: int) -> 'Moments':
        return cls(0, np.zeros(width), np.zeros((width, width)))

    def add(self, features: np.ndarray) -> None:
        """Adds features `[B, width]`."""
        features = np.asarray(features, np.float64)
        self.count += len(features)
        self.total += features.sum(axis=0)
        self.products += features.T @ features

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, over `count - 1`."""
        return (self.products - np.outer(self.mean, self.total)) / (self.count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """`|m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½)`, between Gaussians of these moments.

    The trace of the root is that of `(C₁^½ C₂ C₁^½)^½`, which is symmetric: its eigenvalues are
    real and, up to rounding, not negative, also if a covariance is singular. (D. Dowson,
    B. Landau, The Frechet distance between multivariate normal distributions, 1982.)
    """
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ second.covariance @ root)
    difference = first.mean - second.mean
    trace = np.trace(first.covariance) + np.trace(second.covariance)
    distance = difference @ difference + trace - 2.0 * np.sum(np.sqrt(np.maximum(mixed, 0.0)))
    return max(float(distance), 0.0)


def inception_score(logits: np.ndarray, num_splits: int = 10) -> tuple[float, float]:
    """`exp(E KL(p(y|x) || p(y)))`: mean and standard deviation over splits of the images.

    T. Salimans et al., Improved techniques for training GANs, 2016.

    Args:
      logits: `[N, K]`.
      num_splits: consecutive parts, each with its own p(y).
    """
    scores = []
    for part in np.array_split(np.asarray(logits, np.float64), num_splits):
        part = part - part.max(axis=1, keepdims=True)
        log_p = part - np.log(np.exp(part).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        log_mean = np.log(np.maximum(p.mean(axis=0, keepdims=True), 1e-300))
        scores.append(np.exp(np.mean(np.sum(p * (log_p - log_mean), axis=1))))
    return float(np.mean(scores)), float(np.std(scores))


def psnr(truth: np.ndarray, images: np.ndarray, region: np.ndarray | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, `[N]`: `10 log10(4 / MSE)` for pixels in [-1, 1].

    Args:
      truth: `[N, H, W, C]`.
      images: `[N, H, W, C]`.
      region: `[H, W]` or `[N, H, W]` bool, the pixels that count; None: all.
    """
    errors = _over(np.square(_clipped(truth) - _clipped(images)), region)
    return 10.0 * np.log10(4.0 / np.maximum(errors, 1e-300))


def ssim(truth: np.ndarray, images: np.ndarray, region: np.ndarray | None = None) -> np.ndarray:
    """Structural similarity, `[N]`, arguments as in `psnr`.

    Scikit-image's, with the Gaussian window of 11 pixels (σ 1.5) and the constants of Z. Wang et
    al., Image quality assessment, 2004; over a region, the mean of the map of similarities there.
    """
    from skimage.metrics import structural_similarity

    maps = [
        structural_similarity(
            *pair,
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        # Values from 0: unlike an error, a similarity depends on the zero.
        for pair in zip(_luminance(truth), _luminance(images), strict=True)
    ]
    if region is None:
        return np.array([mean for mean, _ in maps])
    return _over(np.stack([similarity for _, similarity in maps]), region)


def _clipped(images):
    return np.clip(np.asarray(images, np.float64), -1.0, 1.0)


def _luminance(images):
    return 0.5 * (_clipped(images) + 1.0)


def _over(values, region):
    if region is None:
        return values.reshape(len(values), -1).mean(axis=1)
    region = np.broadcast_to(region, values.shape[:3])
    return np.array([part[inside].mean() for part, inside in zip(values, region, strict=True)])
