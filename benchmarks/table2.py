"""The poster's table 2: methods that recover the middle of photographs, at equal cost.

    python benchmarks/table2.py --out=runs/table2 --inception_weights=inception.npz \
        --data_dir=facades --only=pix2pix,0

As table1.py, with `configs/facades.py:64` and its networks: its energy is the critic, its decoder
the generator. Scored are the photographs of --split: PSNR and SSIM of the hole, of single
recoveries and of the mean of 16 recoveries of an image, the Frechet distance of the holes, and the
deviation between recoveries of one image.
"""

import comparison
import jax
import numpy as np
import program
from absl import flags

from vaebm_jax import load, recover
from vaebm_jax.data.batch import as_pixels
from vaebm_jax.data.conditions import fill_of, fixed_condition
from vaebm_jax.data.loading import first_images
from vaebm_jax.figures import grids
from vaebm_jax.tasks.recovery import evaluate_recovery

_OUT = flags.DEFINE_string('out', None, 'Folder of the rows and the table.', required=True)
_ONLY = flags.DEFINE_multi_string('only', [], 'METHOD or METHOD,SEED: these rows alone.')
_STEPS = flags.DEFINE_integer('steps', 1440, "The shipped config's steps, whose cost all rows get.")
_SPLIT = flags.DEFINE_enum('split', 'test', ['val', 'test'], 'The photographs that are scored.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Folder of the photographs; or FACADES_DIR.')
_WEIGHTS = flags.DEFINE_string('inception_weights', None, 'As of --mode=evaluate.')

NUM_RECOVERIES = 16
STRIP = 4  # Photographs in a picture, each with so many recoveries.

_POSTER = {
    'vae.bound_weight': 1.0,
    'vae.known_z_weight': 0.0,
    'vae.truth_weight': 0.0,
    'vae.guess_weight': 0.0,
    'vae.mean_weight': 0.0,
    'warmup_steps': 0,
}
_GAN = {
    'warmup_steps': 0,
    'vae.adam_b1': 0.5,
    'energy.adam_b1': 0.5,
    'vae.learning_rate': 2e-4,
    'energy.learning_rate': 2e-4,
}

ROWS = {
    'vaebm': {},
    'vaebm_poster': _POSTER,
    'vae': {'method': 'vae', 'warmup_steps': 0},
    # At the energy's usual rate, which is for after a warm start, its energies swing.
    'ccoopnets': {
        'method': 'ccoopnets',
        'warmup_steps': 0,
        'energy.learning_rate': 5e-5,
        'vae.guess_weight': 12.5,
    },
    'pix2pix': {'method': 'pix2pix', **_GAN},
    'cvae_gan': {'method': 'cvae_gan', **_GAN},
    'cvae_gan_pp': {'method': 'cvae_gan_pp', **_GAN},
    'bicycle_gan': {'method': 'bicycle_gan', **_GAN},
}

COLUMNS = {
    'PSNR': ('psnr_hole', '{:.2f}'),
    'SSIM': ('ssim_hole', '{:.3f}'),
    'fd_64': ('fd_64', '{:.3f}'),
    'deviation': ('deviation', '{:.3f}'),
}


def whole():
    """The shipped config, of so many steps."""
    config = comparison.of_steps(comparison.shipped('facades', '64'), _STEPS.value)
    return comparison.changed(config, {'data.dir': _DATA_DIR.value} if _DATA_DIR.value else {})


def judge(name, workdir):
    """Scores of single recoveries and of means; draws some photographs and their recoveries."""
    states, config = load(workdir)
    scores = evaluate_recovery(
        config,
        workdir,
        num_recoveries=NUM_RECOVERIES,
        inception_weights=_WEIGHTS.value,
        split=_SPLIT.value,
    )
    truth = as_pixels(first_images(config.data, _SPLIT.value, STRIP))
    condition = jax.device_get(fixed_condition(truth, config.condition))
    _, images = recover(jax.random.key(0), states, config, condition, STRIP)
    pictures = np.concatenate([fill_of(condition)[:, np.newaxis], images, truth[:, np.newaxis]], 1)
    caption = f'{name}: initial fill, {STRIP} recoveries, photograph'
    grids.side_by_side(workdir / 'strip.png', {caption: np.clip(pictures, -1.0, 1.0)})
    return {stage: scores[stage] for stage in ('ancestral', 'refined', 'mean') if stage in scores}


def main(argv):
    del argv
    comparison.make_table(
        _OUT.value, _ONLY.value, whole(), ROWS, COLUMNS, judge, split=_SPLIT.value
    )


if __name__ == '__main__':
    program.run(main)
