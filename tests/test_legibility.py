"""benchmarks/legibility.py: the scores of a set of images, from probabilities and features."""

import json
import subprocess
import sys

import numpy as np
from helpers.commands import ROOT

# In a process of its own: its flags have the names of main's.
PROGRAM = """
import json, sys
import numpy as np
from legibility import legibility
with np.load(sys.argv[1]) as arrays:
    print(json.dumps(legibility(**arrays)))
"""


def test_scores_of_images_of_one_cluster_of_two(tmp_path):
    here = np.random.default_rng(0).normal(size=(50, 8))
    np.savez(
        tmp_path / 'arrays.npz',
        probabilities=np.eye(10)[np.arange(100) % 4],
        features=np.concatenate((here, here)),
        reference=np.concatenate((here, here + 100.0)),
    )
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, tmp_path / 'arrays.npz'],
        cwd=ROOT / 'benchmarks',
        check=True,
        capture_output=True,
        text=True,
    )
    scores = json.loads(done.stdout)
    assert (scores['precision'], scores['recall']) == (1.0, 0.5)
    assert scores['frechet_distance'] > 8 * 50.0**2  # Means 50 apart in each of 8 features.
    assert scores['class_shares'] == [0.25] * 4 + [0.0] * 6
    assert (scores['share_p99'], scores['smallest_class_share']) == (1.0, 0.0)
