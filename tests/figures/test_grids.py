import numpy as np
from PIL import Image

from vaebm_jax.data.batch import to_uint8
from vaebm_jax.figures.grids import grid, side_by_side


def test_to_uint8_inverts_the_scaling_and_clips():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(levels / 127.5 - 1.0), levels)
    np.testing.assert_array_equal(to_uint8(np.array([-3.0, 3.0])), [0, 255])


def test_grid_fills_rows_first_and_enlarges_small_images():
    images = np.full((5, 28, 28, 1), -1.0)
    images[1] = 1.0  # First row, second column; the fifth does not fit a square.
    pixels = np.asarray(grid(images))
    assert pixels.shape == (2 * 62, 2 * 62, 3)
    assert np.all(pixels[:56, 62 : 62 + 56] == 255)
    assert np.all(pixels[:56, :56] == 0) and np.all(pixels[62:118] < 255)


def test_side_by_side_writes_one_png(tmp_path):
    path = tmp_path / 'deep' / 'picture.png'
    side_by_side(path, {'left': np.zeros((4, 32, 32, 3)), 'right': np.ones((4, 32, 32, 3))})
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[1] == 2 * 2 * 70 + 16
    assert np.all(pixels[20:80, 140 + 16 : 200] == 255)
    assert [entry.name for entry in path.parent.iterdir()] == ['picture.png']
