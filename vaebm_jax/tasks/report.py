"""A run on one page, `report.html`, with all pictures inside: no server, no network."""

import base64
import io
import json
import os
import pathlib
import shlex
from collections.abc import Callable
from typing import NamedTuple

from vaebm_jax.config import Config, flatten
from vaebm_jax.evaluation.likelihood import refuse
from vaebm_jax.evaluation.point_scores import NUMBERS
from vaebm_jax.figures import grids
from vaebm_jax.methods import METHODS, has_energy, has_models
from vaebm_jax.runtime.atomic_files import local_folder, write_atomically
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import task_of
from vaebm_jax.training.checkpoints import load_config

_TEMPLATE = pathlib.Path(__file__).with_name('report.html')


# Of scores, by the start of their names; the first that fits.
_UNITS = {
    'num_': 'images',
    'reference_size': 'images',
    'langevin_steps': 'steps',
    'kl_': 'nats',
    'bits_per_dim': 'bits per dim',
    'psnr': 'dB',
    'deviation': 'half ranges',
}
# Colours that differ for colour-blind readers, too (M. Okabe, K. Ito, 2008), then the same dashed.
_COLORS = ('#0072b2', '#e69f00', '#009e73', '#d55e00', '#cc79a7', '#56b4e9', '#000000', '#999999')
_LINES = [(color, dashes) for dashes in ('-', '--', ':') for color in _COLORS]


class Figure(NamedTuple):
    """A picture of the page: `kind` is a media type such as `image/png`, `data` is base64."""

    caption: str
    kind: str
    data: str


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `<workdir>/report.html`: scores, pictures, curves, diagnostics and the config.

    Where a part is missing, the page gives the command that makes it.

    Returns:
      The page's path.

    Raises:
      UserError: if the workdir holds no run, or a file of it cannot be read.
    """
    import jinja2

    workdir = local_folder(workdir)
    config = load_config(workdir)
    rows = _metrics(workdir / 'metrics.jsonl')
    evaluation = _read(workdir / 'evaluation.json', json.loads)
    bounds = _read(workdir / 'likelihood.json', json.loads)
    command = f'python -m vaebm_jax.main --workdir={shlex.quote(str(workdir))} --mode='
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {'number': number, 'command': lambda mode: command + mode}
    page = environment.from_string(_TEMPLATE.read_text('utf-8')).render(
        config=config,
        workdir=workdir,
        reached=f'step {rows[-1]["step"]:,} of {config.num_steps:,}' if rows else 'not started',
        scores=evaluation and scores(evaluation),
        pictures=pictures(workdir / 'samples', config),
        curves=curves(rows),
        warnings=warnings(rows, config),
        energy=evaluation and energy(evaluation),
        has_energy=has_energy(config),
        likelihood=bounds and likelihood(bounds),
        has_likelihood=has_likelihood(config),
        settings=settings(config),
    )
    path = workdir / 'report.html'
    write_atomically(path, page.encode())
    return path


def _read(path, parse):
    """What a file holds, or None where there is none."""
    try:
        return parse(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error


def _metrics(path):
    """The rows of `metrics.jsonl`, up to a row that a killed run wrote half."""
    rows = []
    for line in (_read(path, str) or '').splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def scores(evaluation: dict) -> dict:
    """The table of `evaluation.json`: one row per score, one column per stage."""
    stages = {
        name: row
        for name, row in evaluation.items()
        if isinstance(row, dict) and 'num_samples' in row
    }
    hidden = ('warning', 'mode_weights')
    names = dict.fromkeys(name for row in stages.values() for name in row if name not in hidden)
    return {
        'step': evaluation['checkpoint_step'],
        'ema': evaluation['ema'],
        'head': ['', 'unit', *stages],
        'rows': [
            [name, unit_of(name), *(row.get(name) for row in stages.values())] for name in names
        ],
        'warnings': dict.fromkeys(row['warning'] for row in stages.values() if 'warning' in row),
        'has_distances': any(name.startswith(('fd_', 'fid', 'kl_')) for name in names),
    }


def unit_of(name: str) -> str:
    """What a score of `evaluation.json` is measured in; '' for a number without a unit."""
    return next((unit for prefix, unit in _UNITS.items() if name.startswith(prefix)), '')


def has_likelihood(config: Config) -> bool:
    """Whether --mode=likelihood measures this run."""
    try:
        refuse(config)
    except UserError:
        return False
    return True


def likelihood(bounds: dict) -> dict:
    """The tables of `likelihood.json`: of the test images, and of log Z."""
    images = {'nats': ('log p(x)', 'nats'), 'bits_per_dimension': ('-log2 p(x)', 'bits per dim')}
    columns = ['lower', 'upper', 'standard_error']
    num_chains = bounds['num_chains']
    return {
        'step': bounds['checkpoint_step'],
        'ema': bounds['ema'],
        'num_images': bounds['num_images'],
        'of_images': {
            'head': ['', 'unit', 'lower bound', 'upper bound', 'standard error'],
            'rows': [
                [name, unit, *(bounds[key][column] for column in columns)]
                for key, (name, unit) in images.items()
            ],
        },
        'of_log_z': {
            'head': ['', 'log Z (nats)', 'standard error', f'effective chains of {num_chains}'],
            'rows': [
                [name.replace('_', ' from '), *bounds['log_z'][name].values()]
                for name in ('forward', 'reverse_forward', 'reverse_samples')
            ],
        },
        'warning': bounds.get('warning'),
    }


def pictures(folder: pathlib.Path, config: Config) -> dict:
    """The pictures that modes have drawn, the modes that have yet to, and training's previews."""
    expected = {
        name: picture
        for name, picture in task_of(config).pictures.items()
        if (picture.caption or has_energy(config)) and has_models(config, *picture.roles)
    }
    stages = ', '.join(grids.captions(config))
    drawn = [
        _png(
            folder / name,
            picture.caption.format(stages=stages) + (picture.more if has_energy(config) else ''),
        )
        for name, picture in expected.items()
        if (folder / name).is_file()
    ]
    modes = dict.fromkeys(picture.mode for picture in expected.values())
    steps = sorted(folder.glob('step_*.png'))
    return {
        'drawn': drawn,
        'modes': list(modes) if len(drawn) < len(expected) else [],
        'previews': [
            _png(
                path, f'While training, at step {int(path.stem.removeprefix("step_")):,}: {stages}'
            )
            for path in dict.fromkeys([*steps[:1], *steps[-1:]])
        ],
    }


def curves(rows: list[dict]) -> list[Figure]:
    """One figure per metric, the gap between the two energies first."""
    rows = [row for row in rows if 'event' not in row]
    names = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in names if name != 'step' and not name.startswith('energy_')]
    pairs = [(row.get('energy_samples'), row.get('energy_data')) for row in rows]
    gaps = [None if None in pair else pair[0] - pair[1] for pair in pairs]
    has_gaps = any(gap is not None for gap in gaps)
    panels = {'energy of samples - of data (nats)': gaps} if has_gaps else {}
    panels |= {name: [row.get(name) for row in rows] for name in names}
    steps = [row['step'] for row in rows]

    def draw(axes, values):
        values = [float('nan') if value is None else value for value in values]
        axes.plot(steps, values, linewidth=1.0)
        axes.tick_params(labelsize=8)
        known = sorted(value for value in values if value == value)
        if known and known[0] > 0 and known[-1] > 30 * known[len(known) // 2]:
            axes.set_yscale('log')

    return [
        _svg(name, lambda axes, values=values: draw(axes, values), 4, 2.2)
        for name, values in panels.items()
    ]


def warnings(rows: list[dict], config: Config) -> list[str]:
    """The steps at which the run was logged with a warning, and the warning."""
    rows = [row for row in rows if 'event' not in row and None not in row.values()]
    found = METHODS[config.method].warnings
    return [
        f'Step {row["step"]:,}: {warning}'
        for index, row in enumerate(rows)
        for warning in found(row['step'], row, rows[:index])
    ]


def energy(evaluation: dict) -> dict:
    """What `evaluation.json` says of the energy; empty where it says nothing, as of recoveries."""
    if numbers := [[name, value] for name, value in evaluation.items() if name.startswith(NUMBERS)]:
        return {'numbers': numbers}
    if 'diagnostics' not in evaluation:
        return {}
    found = evaluation['diagnostics']
    edges, counts = found['histogram']['edges'], found['histogram']['counts']

    def draw(axes):
        for (name, values), (color, dashes) in zip(counts.items(), _LINES, strict=False):
            axes.stairs(values, edges, label=name, color=color, linestyle=dashes)
        axes.set_xlabel('energy (nats)')
        axes.set_ylabel('images')
        axes.legend(fontsize=8)

    of_images = {
        'num_images': 'images',
        'mean': 'mean (nats)',
        'std': 'std (nats)',
        'auroc': 'AUROC',
        'auroc_reference_term': 'AUROC of |x - m|²',
    }
    of_chains = {
        'steps': 'steps',
        'energy': 'energy (nats)',
        'distance': 'distance (half ranges)',
        'outside': 'outside (share)',
    }
    return {
        'of_images': {
            'head': ['', *of_images.values()],
            'rows': [
                [name, *(row.get(column) for column in of_images)]
                for name, row in found['energies'].items()
            ],
        },
        'histogram': _svg('Energies of sets of images and of samples', draw, 6.5, 3.6),
        'of_chains': {
            'head': [*of_chains.values()],
            'rows': [[row[column] for column in of_chains] for row in found['long_chains']],
        },
        'acceptance': found['acceptance'],
    }


def settings(config: Config) -> list[tuple[str, str, bool]]:
    """Name, value and whether it differs from the default; those that differ come first."""
    default = flatten(Config())
    rows = [
        (name, repr(value), value != default.get(name)) for name, value in flatten(config).items()
    ]
    return sorted(rows, key=lambda row: not row[2])


def number(value: object) -> object:
    """A value as the page's tables show it."""
    if value is None:
        return '–'
    if isinstance(value, float):
        return f'{value:.4g}'
    return f'{value:,}' if type(value) is int else value


def _png(path, caption):
    return Figure(caption, 'image/png', base64.b64encode(path.read_bytes()).decode())


def _svg(caption: str, draw: Callable[..., None], width: float, height: float) -> Figure:
    """The figure that `draw` draws on axes; sizes in inches."""
    import matplotlib
    from matplotlib import figure

    content = io.BytesIO()
    with matplotlib.rc_context({'axes.spines.top': False, 'axes.spines.right': False}):
        canvas = figure.Figure(figsize=(width, height), layout='constrained')
        draw(canvas.add_subplot())
        canvas.savefig(content, format='svg')
    return Figure(caption, 'image/svg+xml', base64.b64encode(content.getvalue()).decode())
