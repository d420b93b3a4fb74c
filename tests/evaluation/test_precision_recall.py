"""Precision and recall: of sets whose overlap is known, and by a second implementation."""

import numpy as np
import pytest

from vaebm_jax.evaluation import precision_recall
from vaebm_jax.evaluation.precision_recall import precision_and_recall

HERE = np.random.default_rng(0).normal(size=(50, 8))
NEAR, FAR = np.concatenate((HERE, HERE)), np.concatenate((HERE, HERE)) + 100.0
BOTH = np.concatenate((HERE, HERE + 100.0))


@pytest.mark.parametrize(
    'features, reference, expected',
    [
        pytest.param(NEAR, NEAR, (1.0, 1.0), id='the same'),
        pytest.param(NEAR, FAR, (0.0, 0.0), id='elsewhere'),
        pytest.param(NEAR, BOTH, (1.0, 0.5), id='one cluster of two'),
        pytest.param(BOTH, NEAR, (0.5, 1.0), id='two clusters of one'),
    ],
)
def test_of_sets_whose_overlap_is_known(features, reference, expected):
    assert precision_and_recall(features, reference) == expected


def by_the_definition(features, reference):
    """Every distance by itself, from differences."""

    def distance(a, b):
        return np.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))

    def share(points, centers):
        radii = [sorted(distance(a, b) for b in centers)[3] for a in centers]
        inside = [
            any(distance(point, a) <= radius for a, radius in zip(centers, radii, strict=True))
            for point in points
        ]
        return np.mean(inside)

    return share(features, reference), share(reference, features)


@pytest.mark.parametrize('block', [1, 7, 500])
def test_as_by_the_definition_in_blocks_of_any_size(monkeypatch, block):
    """Of float32 features of different numbers of images, far from the origin."""
    monkeypatch.setattr(precision_recall, '_BLOCK', block)
    rng = np.random.default_rng(1)
    features = (30.0 + 1.5 * rng.normal(size=(60, 5))).astype(np.float32)
    reference = (31.0 + rng.normal(size=(45, 5))).astype(np.float32)
    expected = by_the_definition(features.astype(float), reference.astype(float))
    assert precision_and_recall(features, reference) == expected
    assert all(0.2 < value < 0.98 for value in expected)


def test_copies_of_one_image_are_at_no_distance_whatever_rounds():
    """Five of each: the third neighbour is a copy, and a sample is real only where it is one."""
    rng = np.random.default_rng(2)
    images = rng.uniform(0.0, 100.0, size=(40, 768)).astype(np.float32)
    copies = np.repeat(images, 5, axis=0)
    assert precision_and_recall(copies, copies) == (1.0, 1.0)
    assert precision_and_recall(copies[:100], copies) == (1.0, 0.5)
    assert precision_and_recall(copies * (1.0 + 1e-4), copies) == (0.0, 0.0)


def test_a_set_without_third_neighbours_is_refused():
    with pytest.raises(ValueError, match='at least 4 images of either set, got 3 and 50'):
        precision_and_recall(HERE[:3], HERE)
