"""Pictures of the plane: densities, clouds of points and curves, as PNG files."""

import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from vaebm_jax.evaluation.geometry import Grid
from vaebm_jax.runtime.atomic_files import write_atomically

_SHOWN = 3.2  # The pictures show [-3.2, 3.2]².
_DPI = 100


def write(path: str | os.PathLike, width: float, height: float, draw: Callable[[Any], None]):
    """Writes a figure of width x height inches, drawn by `draw`."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {'axes.spines.top': False, 'axes.spines.right': False, 'font.size': 9}
    content = io.BytesIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout='constrained')
        draw(figure)
        figure.savefig(content, format='png', dpi=_DPI)
    write_atomically(path, content.getvalue())


def panel(axes: Any, title: str = '') -> None:
    """Formats axes as a square of the plane without ticks."""
    axes.set(xlim=(-_SHOWN, _SHOWN), ylim=(-_SHOWN, _SHOWN), xticks=[], yticks=[], aspect='equal')
    axes.set_title(title, fontsize=9)
    axes.spines[:].set(visible=True, color='#bbbbbb', linewidth=0.5)


def density(axes: Any, grid: Grid, log_p: np.ndarray, highest: float) -> None:
    """Draws a density `[N]` on the grid; `highest` has the darkest colour."""
    reach = np.sqrt(grid.cell * len(grid.points)) / 2
    extent = (-reach, reach, -reach, reach)
    image = grid.image(np.exp(log_p))
    look = {'cmap': 'BuPu', 'interpolation': 'bilinear', 'vmin': 0, 'vmax': highest}
    axes.imshow(image, origin='lower', extent=extent, **look)


def cloud(axes: Any, points: np.ndarray) -> None:
    """Draws points `[N, 2]`, or the same as images of one pixel."""
    x, y = np.asarray(points).reshape(-1, 2).T
    axes.plot(x, y, ',', color='#4d004b', alpha=0.6)


def clouds(path: str | os.PathLike, sets: dict[str, np.ndarray]) -> None:
    """Writes captioned clouds of points, left to right."""

    def draw(figure):
        for index, (caption, points) in enumerate(sets.items()):
            axes = figure.add_subplot(1, len(sets), index + 1)
            panel(axes, caption)
            cloud(axes, points)

    write(path, 3.2 * len(sets), 3.5, draw)
