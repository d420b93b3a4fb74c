"""Augmentation of the energy's data and samples: known images, and the same for a condition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaebm_jax import Batch
from vaebm_jax.config import validate
from vaebm_jax.data.augment import AUGMENTATIONS, augment
from vaebm_jax.methods.parts import disguised
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.keys import chain_keys

KEYS = chain_keys(jax.random.key(3), 400)


def ramp(height, width):
    """An image whose pixels say where they are, `[H, W, 2]`."""
    rows, columns = np.meshgrid(range(1, height + 1), range(1, width + 1), indexing='ij')
    return np.stack([rows, columns], axis=-1).astype(np.float32)


def changed(name, image):
    return np.asarray(augment(KEYS, (name,), jnp.stack([jnp.asarray(image)] * len(KEYS)))[0])


def test_a_flip_mirrors_half_of_the_images():
    image = ramp(4, 6)
    flipped = changed('flip', image)
    is_mirror = (flipped == image[:, ::-1]).all(axis=(1, 2, 3))
    assert (is_mirror | (flipped == image).all(axis=(1, 2, 3))).all()
    assert 0.4 < is_mirror.mean() < 0.6


def test_a_shift_takes_every_offset_up_to_an_eighth_as_often():
    """Of 16 x 24 pixels up to 2 and 3; the border's pixels are repeated."""
    shifted = changed('shift', ramp(16, 24))
    down, right = 8 - shifted[:, 7, 11, 0], 12 - shifted[:, 7, 11, 1]
    for offsets, reach in ((down, 2), (right, 3)):
        values, counts = np.unique(offsets, return_counts=True)
        assert list(values) == list(range(-reach, reach + 1))
        assert counts.min() > 0.5 * len(KEYS) / len(values)
    for image, rows, columns in zip(shifted, down, right, strict=True):
        right_rows = np.clip(np.arange(1, 17) - rows, 1, 16)
        right_columns = np.clip(np.arange(1, 25) - columns, 1, 24)
        assert (image[..., 0] == right_rows[:, None]).all()
        assert (image[..., 1] == right_columns).all()


def test_a_cutout_is_a_square_of_half_the_side_centred_anywhere():
    cut = changed('cutout', ramp(16, 16))
    centres = set()
    for image in cut:
        hole = (image == 0).all(axis=-1)
        assert (image[~hole] == ramp(16, 16)[~hole]).all()
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert (hole[np.ix_(rows, columns)]).all() and hole.sum() == len(rows) * len(columns)
        for found in (rows, columns):
            assert 5 <= len(found) <= 9 and (len(found) == 9 or found[0] == 0 or found[-1] == 15)
        centres.add((rows[0], rows[-1], columns[0], columns[-1]))
    assert len(centres) > 100


@pytest.mark.parametrize('names', [(), ('flip',), ('shift', 'cutout'), tuple(AUGMENTATIONS)])
def test_a_condition_is_changed_like_its_image(names):
    images = jax.random.normal(jax.random.key(0), (len(KEYS), 8, 8, 3))
    condition = jnp.concatenate([images, images[..., :1] > 0], axis=-1)
    image, plane = augment(KEYS, names, images, condition)
    assert (image == plane[..., :3]).all() and ((image[..., 0] > 0) == plane[..., 3]).all()
    assert (image == augment(KEYS, names, images)[0]).all()
    assert bool((image == images).all()) == (not names)


def test_the_noise_of_the_first_updates_falls_in_a_line(tiny_config):
    energy = dataclasses.replace(tiny_config.energy, start_noise=0.5, start_noise_steps=100)
    config = dataclasses.replace(tiny_config, energy=energy)
    batch = Batch(jnp.zeros((400, 8, 8, 1)))
    for updates, std in ((0, 0.5), (50, 0.25), (99, 0.005), (100, 0.0), (5000, 0.0)):
        noise = disguised(KEYS, batch, config, jnp.int32(updates)).image
        np.testing.assert_allclose(jnp.std(noise), std, rtol=0.03)


@pytest.mark.parametrize('names', [('turn',), ('flip', 'flip'), (('flip',),), (1,)])
def test_other_names_are_refused(tiny_config, names):
    energy = dataclasses.replace(tiny_config.energy, augment=names)
    with pytest.raises(UserError, match="augment must be a tuple of different names of 'flip'"):
        validate(dataclasses.replace(tiny_config, energy=energy))
