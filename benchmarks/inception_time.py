"""Times Inception-v3's features on a CPU: the plain network and the one written for a CPU.

    python benchmarks/inception_time.py inception.npz

One JSON line: milliseconds per image of CPU and wall time, medians, in batches of 64 and of 8, and
the largest difference of a feature divided by the largest feature.
"""

import json
import statistics
import sys
import time
from unittest import mock

import jax
import numpy as np

from vaebm_jax.evaluation import inception

_NUM_IMAGES, _TURNS = 64, 3


def plainly(weights, images):
    """As other platforms compute them."""
    plain = lambda *arrays, cpu, default: default(*arrays)
    with mock.patch.object(inception.lax, 'platform_dependent', plain):
        return inception.inception_features.__wrapped__(weights, images)


def main(path: str) -> None:
    weights = inception.load_inception(path)
    images = np.random.default_rng(0).integers(0, 256, (_NUM_IMAGES, 32, 32, 3), np.uint8)
    forms = {'plain': jax.jit(plainly), 'cpu': inception.inception_features}
    names = [(name, size) for name in forms for size in (64, 8)]
    times, features = {pair: [] for pair in names}, {}
    for turn in range(_TURNS + 1):  # The first compiles.
        for name, size in names:
            cpu, wall = time.process_time(), time.perf_counter()
            batches = range(0, _NUM_IMAGES, size)
            parts = [jax.device_get(forms[name](weights, images[i : i + size])) for i in batches]
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                times[name, size].append([1000 * seconds / _NUM_IMAGES for seconds in spent])
            features[name] = jax.tree.map(lambda *each: np.concatenate(each), *parts)
    pairs = [(values, features['cpu'][width]) for width, values in features['plain'].items()]
    row = {
        f'{name}_{size}': [round(statistics.median(kind), 1) for kind in zip(*turns, strict=True)]
        for (name, size), turns in times.items()
    }
    row['difference'] = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
    print(json.dumps({'jax': jax.__version__} | row))


if __name__ == '__main__':
    main(*sys.argv[1:])
