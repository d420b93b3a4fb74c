"""How many samples look like real images, and how many real images look like a sample."""

from collections.abc import Iterator

import numpy as np

NUM_NEIGHBORS = 3  # Of the authors.
MAX_IMAGES = 10_000  # The time grows with the square of their number.

_BLOCK = 500  # Rows of distances held at once: 40 MB each of 10,000 columns.
_SAME = 1e-12  # Squared distances below it, over the squared norms, are rounding.


def precision_and_recall(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Precision and recall of T. Kynkaanniemi et al., Improved precision and recall metric, 2019.

    Precision is the share of samples within the distance of a reference image to its third
    neighbour, for any of these images; recall is the same with the two sets exchanged.

    Args:
      features: `[N, D]`, of samples.
      reference: `[M, D]`, of real images. The authors compare as many of either.

    Raises:
      ValueError: where a set has no third neighbours: both need at least 4 images.
    """
    if min(len(features), len(reference)) <= NUM_NEIGHBORS:
        raise ValueError(
            f'precision and recall need at least {NUM_NEIGHBORS + 1} images of either set, got '
            f'{len(features)} and {len(reference)}'
        )
    features, reference = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    radii, reference_radii = _squared_radii(features), _squared_radii(reference)
    is_real = np.zeros(len(features), bool)
    is_covered = np.zeros(len(reference), bool)
    for rows, distances in _squared_distances(features, reference):
        is_real[rows] = (distances <= reference_radii).any(axis=1)
        is_covered |= (distances <= radii[rows, np.newaxis]).any(axis=0)
    return float(is_real.mean()), float(is_covered.mean())


def _squared_radii(points):
    """Each point's squared distance to its third neighbour; the nearest of all is itself."""
    radii = np.empty(len(points))
    for rows, distances in _squared_distances(points, points):
        radii[rows] = np.partition(distances, NUM_NEIGHBORS, axis=1)[:, NUM_NEIGHBORS]
    return radii


def _squared_distances(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows of `[N, M]`, and which rows they are."""
    norms, others = (np.square(points).sum(axis=1) for points in (first, second))
    for start in range(0, len(first), _BLOCK):
        rows = slice(start, start + _BLOCK)
        sums = norms[rows, np.newaxis] + others
        distances = sums - 2.0 * (first[rows] @ second.T)
        distances[distances < _SAME * sums] = 0.0
        yield rows, distances
