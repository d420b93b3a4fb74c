"""Images for tests."""

import numpy as np

from vaebm_jax.evaluation.fills import resize


def smooth_images(num_images, size=32, seed=0):
    """A few colours blended over the image, with more of a slope than a mean tells."""
    corners = np.random.default_rng(seed).uniform(-1.0, 1.0, (num_images, 3, 3, 3))
    return np.asarray(resize(corners, size).clip(-1.0, 1.0), np.float32)
