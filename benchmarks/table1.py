"""The poster's table 1: methods that generate images, trained at equal cost and scored alike.

    python benchmarks/table1.py --out=runs/table1 --classifier=mnist.npz \
        --inception_weights=inception.npz --only=dcgan,0

Each run gets the operations of --steps steps of the shipped config, counted from the traced steps,
so a cheaper step is made more often. The methods have the networks of that config, as far as they
use them: its energy is the critic, its decoder the generator. Where these are dense, dcgan has
convolutions, and the likelihood of pixelcnn and pixeliqn has a network of its own.

A finished run is `<out>/<method>_<seed>.json`, with settings and scores, and `.png`, its samples;
it is not made again, so a table grows over days. `<out>/table.md` has what there is: means over
seeds, and a row of samples of each method.

pixelcnn and pixeliqn draw value after value, which takes minutes for a hundred images of 28 x 28:
they are scored by a tenth of the samples, which makes Frechet distances larger.
"""

import comparison
import jax
import numpy as np
import program
from absl import flags

from vaebm_jax import generate, load
from vaebm_jax.evaluation.scores import evaluate
from vaebm_jax.figures import grids
from vaebm_jax.methods import sample_stages

_OUT = flags.DEFINE_string('out', None, 'Folder of the rows and the table.', required=True)
_DATASET = flags.DEFINE_enum(
    'dataset', 'mnist', ['mnist', 'fashion_mnist', 'cifar10'], 'The images; cifar10 is for a GPU.'
)
_ONLY = flags.DEFINE_multi_string('only', [], 'METHOD or METHOD,SEED: these rows alone.')
_STEPS = flags.DEFINE_integer('steps', 5000, "The shipped config's steps, whose cost all rows get.")
_NUM_SAMPLES = flags.DEFINE_integer('num_samples', 1000, 'To score.')
_CLASSIFIER = flags.DEFINE_string('classifier', None, "The judge's weights (npz).")
_WEIGHTS = flags.DEFINE_string('inception_weights', None, 'As of --mode=evaluate.')

STRIP = 16  # Samples in a row of the page.
VALUE_BY_VALUE = 'pixelcnn', 'pixeliqn'

# The poster's own teaching: the VAE learns by its bound on refined samples alone.
_POSTER = {'vae.bound_weight': 1.0, 'vae.known_z_weight': 0.0, 'vae.truth_weight': 0.0}
# Without what the shipped config has for its energy alone.
_PLAIN = {
    'warmup_steps': 0,
    'data.headroom': 0.0,
    'energy.reference_mean': 0.0,
    'schedule.energy_steps': 0,
}
# Rates and moments are the published ones, or near.
_GAN = {
    **_PLAIN,
    'data.dequantize': False,
    'energy.spectral_norm': 0.0,
    'energy.adam_b1': 0.5,
    'vae.adam_b1': 0.5,
    'energy.learning_rate': 2e-4,
    'vae.learning_rate': 2e-4,
}
# Dense networks of DCGAN collapse on these images: a critic tells data from samples at once.
_CONVOLUTIONS = {
    'network.energy': tuple(('conv', features, 5, 2) for features in (32, 64, 128)),
    'network.decoder': (('map', 128), *(('up', features, 3) for features in (64, 32, 16))),
    'network.activation': 'leaky_relu',
}
# The published sampler and energy, with a tenth of the published scale, which takes as many steps
# as there are here.
_FROM_NOISE = {
    **_PLAIN,
    'data.dequantize': True,
    'energy.reference_std': 0.0,
    'energy.scale': 8e4,
    'energy.spectral_norm': 1.0,
    'energy.l2': 1.0,
    'energy.adam_b1': 0.0,
    'energy.max_grad_element': 0.1,
    'energy.data_noise': 0.0,
    'langevin.num_steps': 40,
    'langevin.step_size': 0.01,
    'langevin.max_drift': 0.0,
    'langevin.max_element_drift': 0.2,
}
# Without spectral norm: its energy is too flat to carry noise to a digit in 40 steps.
_SHORT_RUN = {
    **_FROM_NOISE,
    'energy.scale': 2e4,
    'energy.spectral_norm': 0.0,
    'energy.l2': 0.0,
    'energy.adam_b1': 0.5,
    'energy.learning_rate': 1e-4,
    'energy.max_grad_element': 0.0,
    'energy.data_noise': 0.03,
    'langevin.max_element_drift': 0.0,
}
_LIKELIHOOD = {
    **_PLAIN,
    'data.dequantize': False,
    'batch_size': 32,
    'vae.learning_rate': 1e-3,
    'vae.max_grad_norm': 1.0,
    'network.likelihood': (*(('gated', 32, 3),) * 6, ('dense', 64)),
}

ROWS = {
    'vaebm': {},
    'vaebm_poster': _POSTER,
    'vae': {'method': 'vae', 'warmup_steps': 0},
    'coopnets': {'method': 'coopnets', 'warmup_steps': 0},
    'short_run': {'method': 'short_run', **_SHORT_RUN},
    'persistent': {'method': 'persistent', 'langevin.memory_size': 2000, **_FROM_NOISE},
    'dcgan': {'method': 'dcgan', **_GAN},
    'wgan_gp': {
        'method': 'wgan_gp',
        **_GAN,
        'batch_size': 320,
        'energy.adam_b2': 0.9,
        'vae.adam_b2': 0.9,
    },
    'pixelcnn': {'method': 'pixelcnn', **_LIKELIHOOD},
    'pixeliqn': {'method': 'pixeliqn', **_LIKELIHOOD},
}

# A column: the score of a stage, and its format.
COLUMNS = {
    'fd_768': ('fd_768', '{:.3f}'),
    'fd_192': ('fd_192', '{:.2f}'),
    'precision': ('precision', '{:.2f}'),
    'recall': ('recall', '{:.2f}'),
    'p >= 0.9': ('share_p90', '{:.1%}'),
    'smallest class': ('smallest_class_share', '{:.1%}'),
}


def whole():
    """The shipped config, of so many steps."""
    config = comparison.shipped(_DATASET.value, 'gpu' if _DATASET.value == 'cifar10' else '')
    return comparison.of_steps(config, _STEPS.value)


def rows():
    """ROWS for the data set: where the shipped decoder is dense, that of dcgan is not."""
    is_dense = all(row[0] == 'dense' for row in whole().network.decoder)
    return ROWS | ({'dcgan': ROWS['dcgan'] | _CONVOLUTIONS} if is_dense else {})


def num_samples(name):
    return _NUM_SAMPLES.value // (10 if name in VALUE_BY_VALUE else 1)


def judge(name, workdir):
    """Scores of each stage of a run's samples; draws a strip of the last stage."""
    states, config = load(workdir)
    scores = evaluate(
        config,
        workdir,
        num_samples=num_samples(name),
        inception_weights=_WEIGHTS.value,
        num_reference=_NUM_SAMPLES.value,
        cache=_OUT.value,
    )
    stages = {stage: scores[stage] for stage in sample_stages(config)}
    if _CLASSIFIER.value:
        legibility = comparison.legibility(
            workdir, _DATASET.value, _CLASSIFIER.value, num_samples(name)
        )
        stages = {stage: stages[stage] | legibility[stage] for stage in stages}
    _, images = generate(jax.random.key(0), states, config, STRIP)
    caption = f'{name}, {grids.captions(config)[-1]}'
    grids.side_by_side(workdir / 'strip.png', {caption: np.asarray(images)[np.newaxis]})
    return stages


def main(argv):
    del argv
    comparison.make_table(
        _OUT.value, _ONLY.value, whole(), rows(), COLUMNS, judge, dataset=_DATASET.value
    )


if __name__ == '__main__':
    program.run(main)
