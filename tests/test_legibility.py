"""benchmarks/legibility.py: precision and recall of sets whose overlap is known."""

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers.commands import ROOT

BENCHMARKS = ROOT / 'benchmarks'
# In a process of its own: its flags have the names of main's.
PROGRAM = """
import json, sys
import numpy as np
from legibility import precision_and_recall
arrays = np.load(sys.argv[1])
pairs = zip(arrays['features'], arrays['reference'], strict=True)
print(json.dumps([precision_and_recall(*pair) for pair in pairs]))
"""


@pytest.fixture(scope='module')
def scores(tmp_path_factory):
    generator = np.random.default_rng(0)
    here = generator.normal(size=(50, 8))
    there = here + 100.0
    near, far, both = (
        np.concatenate(pair) for pair in ((here, here), (there, there), (here, there))
    )
    features = [near, near, near, both]
    reference = [near, far, both, near]
    path = tmp_path_factory.mktemp('features') / 'features.npz'
    np.savez(path, features=features, reference=reference)
    output = subprocess.run(
        [sys.executable, '-c', PROGRAM, path],
        cwd=BENCHMARKS,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = ['the same', 'elsewhere', 'one cluster of two', 'two of one']
    return dict(zip(names, json.loads(output), strict=True))


def test_the_same_images_score_one(scores):
    assert scores['the same'] == [1.0, 1.0]


def test_images_elsewhere_score_nothing(scores):
    assert scores['elsewhere'] == [0.0, 0.0]


def test_what_is_never_drawn_is_missing_from_recall_alone(scores):
    assert scores['one cluster of two'] == [1.0, 0.5]


def test_what_is_drawn_beside_the_data_is_missing_from_precision_alone(scores):
    assert scores['two of one'] == [0.5, 1.0]
