"""Wrong command lines: many at once."""

import dataclasses
import json
import os
import subprocess
import sys

from helpers.commands import ROOT
from vaebm_jax.config import ConditionConfig, Config, DataConfig, NetworkConfig

POINTS = Config(
    data=DataConfig('ring', image_size=1, num_channels=2),
    network=NetworkConfig(decoder_output='linear'),
)
# Runs of other kinds, of which there is the config alone.
OTHER_RUNS = {
    'points': POINTS,
    'gray': Config(
        data=DataConfig('folder', 'images', num_channels=3), condition=ConditionConfig('gray')
    ),
    'vae': Config(method='vae'),
    'five': Config(data=DataConfig('array', 'five.npy', num_channels=5)),
    'five_gray': Config(
        data=DataConfig('array', 'five.npy', num_channels=5),
        condition=ConditionConfig('center_hole'),
    ),
    'vae_points': dataclasses.replace(POINTS, method='vae'),
}


def run_all(cases, folder):
    done = subprocess.run(
        [sys.executable, ROOT / 'tests' / 'helpers' / 'run_mistakes.py'],
        input=json.dumps(cases),
        cwd=folder,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'XDG_CACHE_HOME': str(folder.parent / 'cache')},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
