"""Trains one recipe change by change at equal cost, and scores each: a table that grows over days.

    python benchmarks/ablation.py --out=runs/ablation --classifier=cifar16.npz \
        --only=paper --only=recipe,0

The recipe is `configs/cifar10.py:small`. The rows of ROWS begin with the paper's teaching and add
its changes in turn; `without_...` takes one away from the whole. Each row gets the operations of
--steps steps of the recipe, counted from shapes, so a cheaper step is made more often. A finished
row is `<out>/<row>_<seed>.json`, with its settings and scores, and `.png`, ancestral samples on the
left and refined ones on the right; it is not made again. `<out>/table.md` has all rows there are.
The judge is benchmarks/legibility.py, which keeps its classifier in --classifier.
"""

import dataclasses

import comparison
import program
from absl import flags

_OUT = flags.DEFINE_string('out', None, 'Folder of the rows and the table.', required=True)
_ONLY = flags.DEFINE_multi_string('only', [], 'ROW or ROW,SEED: these alone.')
_STEPS = flags.DEFINE_integer('steps', 3000, "The recipe's steps, whose cost all rows get.")
_CLASSIFIER = flags.DEFINE_string('classifier', None, "The judge's weights (npz).", required=True)
_NUM_SAMPLES = flags.DEFINE_integer('num_samples', 2000, 'To score.')

# What makes the paper's recipe of the whole: its teaching, energy, optimizer and decoder.
PAPER = {
    'langevin.num_steps': 10,
    'langevin.step_size': 0.006,
    'langevin.max_drift': 8.0,
    'energy.reference_std': 0.016,
    'energy.scale': 0.0,
    'energy.spectral_norm': 0.0,
    'energy.l2': 0.0,
    'energy.data_noise': 0.0,
    'energy.learning_rate': 5e-4,
    'energy.adam_b1': 0.5,
    'energy.adam_b2': 0.999,
    'vae.adam_b1': 0.5,
    'vae.adam_b2': 0.999,
    'vae.bound_weight': 1.0,
    'vae.known_z_weight': 0.0,
    'vae.truth_weight': 0.0,
    'network.decoder_modulated': False,
}
_KNOWN_Z = ('vae.known_z_weight', 'vae.truth_weight', 'vae.bound_weight')
_ENERGY = tuple(name for name in PAPER if name.startswith(('energy.', 'langevin.')))
_NOISE = ('energy.data_noise',)
_MODULATED = ('network.decoder_modulated',)


def _paper_but(*parts):
    """The paper's recipe, with these settings as the whole recipe has them."""
    return {name: value for name, value in PAPER.items() if name not in sum(parts, ())}


_SMALL_ENERGY = (('conv', 32, 3, 1), ('conv', 64, 4, 2), ('res', 64, 2), ('res', 128, 2))

ROWS = {
    'paper': PAPER,
    'known_z': _paper_but(_KNOWN_Z),
    'spectral_norm': _paper_but(_KNOWN_Z, tuple(name for name in _ENERGY if name not in _NOISE)),
    'data_noise': _paper_but(_KNOWN_Z, _ENERGY),
    'recipe': {},
    'without_known_z': {name: PAPER[name] for name in _KNOWN_Z},
    'without_data_noise': {name: PAPER[name] for name in _NOISE},
    'without_modulation': {name: PAPER[name] for name in _MODULATED},
    'bound_for_truth': {'vae.truth_weight': 0.0, 'vae.bound_weight': 0.02},
    'fast_decoder': {'vae.learning_rate': 5e-4},
    'slow_decoder': {'vae.learning_rate': 5e-5},
    'slow_energy': {'energy.learning_rate': 4e-4},
    'long_chain': {
        'langevin.num_steps': 10,
        'energy.scale': 1e7,
        'energy.data_noise': 0.0032,
    },
    'start_noise': {'energy.start_noise': 0.2},
    'augment': {'energy.augment': ('flip', 'shift')},
    'dense_energy': {'network.energy': (*_SMALL_ENERGY, ('dense', 256))},
}


COLUMNS = {
    'Frechet distance': ('frechet_distance', '{:.1f}'),
    'p >= 0.9': ('share_p90', '{:.1%}'),
    'precision': ('precision', '{:.2f}'),
    'recall': ('recall', '{:.2f}'),
    'smallest class': ('smallest_class_share', '{:.1%}'),
}


def whole():
    """The recipe, of so many steps."""
    config = comparison.shipped('cifar10', 'small')
    return dataclasses.replace(config, num_steps=_STEPS.value)


def judge(name, workdir):
    """Scores of both stages of a run's samples."""
    del name
    return comparison.legibility(workdir, 'cifar10', _CLASSIFIER.value, _NUM_SAMPLES.value)


def main(argv):
    del argv
    comparison.make_table(_OUT.value, _ONLY.value, whole(), ROWS, COLUMNS, judge)


if __name__ == '__main__':
    program.run(main)
