"""A run on one page: `report.html`, which needs neither a server nor a network."""

import base64
import html
import io
import json
import os
import pathlib
from collections.abc import Iterable

from vaebm_jax.config import Config, flatten
from vaebm_jax.evaluation.point_scores import NUMBERS
from vaebm_jax.methods import has_energy
from vaebm_jax.runtime.atomic_files import local_folder, write_atomically
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import task_of
from vaebm_jax.training.checkpoints import load_config

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
img { max-width: 100%; height: auto } figure { margin: 1.5rem 0 } figcaption { color: #555 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .2rem .9rem .2rem 0; text-align: right; border-bottom: 1px solid #eee }
td:first-child, th:first-child { text-align: left }
.changed td { font-weight: 600 } .missing { color: #777 } .warning { color: #a40000 }
code { font-size: 90%; overflow-wrap: anywhere }
"""


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `<workdir>/report.html`: scores, pictures, curves, diagnostics and the config.

    What the workdir does not hold yet is named there, with the command that makes it.

    Returns:
      The page's path.

    Raises:
      UserError: if the workdir holds no run, or a file of it cannot be read.
    """
    workdir = local_folder(workdir)
    config = load_config(workdir)
    rows = _metrics(workdir / 'metrics.jsonl')
    evaluation = _read(workdir / 'evaluation.json', json.loads)
    reached = f'step {rows[-1]["step"]:,} of {config.num_steps:,}' if rows else 'not started'
    mode = f'python -m vaebm_jax.main --workdir={workdir} --mode='
    energy = ['<h2>The energy</h2>', *_diagnostics(evaluation, config, mode + 'evaluate')]
    parts = [
        f'<h1>{_text(config.name)}</h1>',
        f'<p>{_text(config.method)} on {_text(config.data.name)}, {reached}, in '
        f'<code>{_text(workdir)}</code>.</p>',
        '<h2>Scores</h2>',
        *_scores(evaluation, mode + 'evaluate --inception_weights=FILE'),
        '<h2>Pictures</h2>',
        *_pictures(workdir / 'samples', mode, config),
        '<h2>Training</h2>',
        _curves(rows) if rows else _missing('No steps are logged yet', 'python -m vaebm_jax.main'),
        *(energy if has_energy(config) else []),
        '<h2>Config</h2>',
        _settings(config),
    ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<title>{_text(config.name)}: {reached}</title>\n'
        f'<style>{_STYLE}</style>\n</head>\n<body>\n' + '\n'.join(parts) + '\n</body>\n</html>\n'
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
    """The rows of `metrics.jsonl`, the half row of a killed run left out."""
    rows = []
    for line in (_read(path, str) or '').splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _scores(evaluation, command):
    if evaluation is None:
        return [_missing('No scores yet', command)]
    samplers = {name: row for name, row in evaluation.items() if 'num_samples' in _as_dict(row)}
    hidden = ('warning', 'mode_weights')
    names = dict.fromkeys(name for row in samplers.values() for name in row if name not in hidden)
    lines = [[name, *(row.get(name) for row in samplers.values())] for name in names]
    parts = [
        f'<p>Checkpoint of step {evaluation["checkpoint_step"]:,}; '
        f'{"averaged" if evaluation["ema"] else "raw"} parameters. A Frechet distance is the '
        'better the lower, an Inception score the higher.</p>',
        _table(['', *samplers], lines),
    ]
    warnings = dict.fromkeys(row['warning'] for row in samplers.values() if 'warning' in row)
    parts += [f'<p class="warning">{_text(warning)}.</p>' for warning in warnings]
    if not any(name.startswith(('fd_', 'fid', 'kl_')) for name in names):
        parts.append(_missing('No Frechet distances yet', command))
    return parts


def _pictures(folder, command, config):
    parts = []
    expected = {
        name: picture
        for name, picture in task_of(config).pictures.items()
        if picture.caption or has_energy(config)
    }
    for name, picture in expected.items():
        if (folder / name).is_file():
            caption = picture.caption + (picture.more if has_energy(config) else '')
            parts.append(_figure((folder / name).read_bytes(), 'image/png', caption))
    if len(parts) < len(expected):
        first, *others = dict.fromkeys(picture.mode for picture in expected.values())
        command += first + ''.join(f' (and --mode={mode})' for mode in others)
        parts.append(_missing('Some pictures are not drawn yet', command))
    steps = sorted(folder.glob('step_*.png'))
    for path in dict.fromkeys([*steps[:1], *steps[-1:]]):
        step = int(path.stem.removeprefix('step_'))
        revised = ': before and after revision' if has_energy(config) else ''
        caption = f'While training, at step {step:,}{revised}'
        parts.append(_figure(path.read_bytes(), 'image/png', caption))
    return parts


def _curves(rows):
    """A panel a metric: the gap between the energies first, then what the file holds."""
    rows = [row for row in rows if 'event' not in row]
    names = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in names if name != 'step' and not name.startswith('energy_')]
    pairs = [(row.get('energy_samples'), row.get('energy_data')) for row in rows]
    gaps = [None if None in pair else pair[0] - pair[1] for pair in pairs]
    has_gaps = any(gap is not None for gap in gaps)
    panels = {'energy of samples - of data (nats)': gaps} if has_gaps else {}
    panels |= {name: [row.get(name) for row in rows] for name in names}
    steps = [row['step'] for row in rows]
    height = -(-len(panels) // 3)

    def draw(figure):
        for index, (name, values) in enumerate(panels.items()):
            axes = figure.add_subplot(height, 3, index + 1)
            values = [float('nan') if value is None else value for value in values]
            axes.plot(steps, values, linewidth=1.0)
            axes.set_title(name, fontsize=9)
            axes.tick_params(labelsize=8)
            known = sorted(value for value in values if value == value)
            if known and known[0] > 0 and known[-1] > 30 * known[len(known) // 2]:
                axes.set_yscale('log')

    return _figure(_drawn(draw, 12, 2.4 * height), 'image/svg+xml', 'By training step')


def _diagnostics(evaluation, config, command):
    if evaluation is None:
        return [_missing('Not examined yet', command)]
    if rows := [[name, value] for name, value in evaluation.items() if name.startswith(NUMBERS)]:
        return ['<p>In nats, by sums over a grid.</p>', _table(['', ''], rows)]
    if 'diagnostics' not in evaluation:
        return ['<p>Energies of recoveries are not examined.</p>']
    found = evaluation['diagnostics']
    energies = found['energies']
    columns = ['num_images', 'mean', 'std', 'auroc', 'auroc_reference_term']
    rows = [[name, *(row.get(column) for column in columns)] for name, row in energies.items()]
    edges, counts = found['histogram']['edges'], found['histogram']['counts']

    def draw(figure):
        axes = figure.add_subplot()
        for name, values in counts.items():
            axes.stairs(values, edges, label=name)
        axes.set_xlabel('energy (nats)')
        axes.set_ylabel('images')
        axes.legend(fontsize=8)

    chains = found['long_chains']
    columns_chains = ['steps', 'energy', 'distance', 'outside']
    accepted = found['acceptance']
    return [
        '<p>Energies in nats. <code>auroc</code>: how often an image of the set has a higher '
        'energy than a test image; beside it, what the reference |x - m|² alone reaches.</p>',
        _table(['', *columns], rows),
        _figure(_drawn(draw, 10, 4), 'image/svg+xml', 'Energies of sets of images and of samples'),
        "<p>Long chains from the decoder's samples: mean energy, Euclidean distance from the start "
        'and the share of pixels beyond black and white.</p>',
        _table(columns_chains, [[row[column] for column in columns_chains] for row in chains]),
        f'<p>A Metropolis test would accept {_number(accepted["mean"])} of the Langevin steps of '
        f'size {_number(accepted["step_size"])}; near 1, the discretization costs nothing.</p>',
    ]


def _settings(config):
    default = flatten(Config())
    own = flatten(config)
    changed = {name: value for name, value in own.items() if value != default.get(name)}
    rest = {name: value for name, value in own.items() if name not in changed}
    rows = ''.join(
        f'<tr{mark}><td>{_text(name)}</td><td><code>{_text(repr(value))}</code></td></tr>'
        for mark, settings in ((' class="changed"', changed), ('', rest))
        for name, value in settings.items()
    )
    return f'<p>Bold: not the default.</p><table>{rows}</table>'


def _table(head: Iterable[str], rows: Iterable[Iterable]) -> str:
    lines = ['<tr>' + ''.join(f'<th>{_text(name)}</th>' for name in head) + '</tr>']
    for name, *values in rows:
        cells = ''.join(f'<td>{_text(_number(value))}</td>' for value in values)
        lines.append(f'<tr><td>{_text(_number(name))}</td>{cells}</tr>')
    return f'<table>{"".join(lines)}</table>'


def _drawn(draw, width, height):
    """An SVG of what `draw` makes of a figure."""
    import matplotlib
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with matplotlib.rc_context({'axes.spines.top': False, 'axes.spines.right': False}):
        figure = Figure(figsize=(width, height), layout='constrained')
        draw(figure)
        figure.savefig(content, format='svg')
    return content.getvalue()


def _figure(content, kind, caption):
    data = base64.b64encode(content).decode()
    image = f'<img alt="{_text(caption)}" src="data:{kind};base64,{data}">'
    return f'<figure>{image}<figcaption>{_text(caption)}</figcaption></figure>'


def _missing(what, command):
    return f'<p class="missing">{_text(what)}: <code>{_text(command)}</code></p>'


def _number(value):
    if value is None:
        return '–'
    return (
        f'{value:.4g}'
        if isinstance(value, float)
        else f'{value:,}'
        if type(value) is int
        else value
    )


def _as_dict(value):
    return value if isinstance(value, dict) else {}


def _text(value):
    return html.escape(str(value))
