"""Makes the models that `load_pretrained` loads, from a run and its record.

    python tools/pretrained.py mnist --workdir=runs/mnist --record=docs/results/mnist.json

The record is one of tools/results.py: config, commit, commands, versions, processor, scores.
Writes `vaebm_jax/weights/mnist.npz`, the averaged parameters in 16 bits, and `mnist.json`.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import pathlib

import numpy as np

from vaebm_jax import load
from vaebm_jax.config import Config, flatten
from vaebm_jax.runtime.atomic_files import write_atomically, write_json
from vaebm_jax.training.pretrained import FOLDER, stored_arrays


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('name')
    parser.add_argument('--workdir', type=pathlib.Path, required=True)
    parser.add_argument('--record', type=pathlib.Path, required=True)
    flags = parser.parse_args()
    states, config = load(flags.workdir)
    record = json.loads(flags.record.read_text())
    settings, defaults = (json.loads(json.dumps(flatten(c))) for c in (config, Config()))
    if defaults | record.pop('config') != settings:  # A field that came later has its default.
        parser.error(f'{flags.record} is of a run with another config than {flags.workdir}')
    content = io.BytesIO()
    np.savez_compressed(content, **stored_arrays(states))
    write_atomically(FOLDER / f'{flags.name}.npz', content.getvalue())
    about = {
        'sha256': hashlib.sha256(content.getvalue()).hexdigest(),
        'step': int(states.step),
        'config': dataclasses.asdict(config),
    }
    write_json(FOLDER / f'{flags.name}.json', about | record)


if __name__ == '__main__':
    main()
