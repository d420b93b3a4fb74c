"""What tables of runs at equal cost share: a finished run is a JSON file and a strip of samples."""

import dataclasses
import functools
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import operations

from vaebm_jax.config import Config, flatten, validate
from vaebm_jax.methods import METHODS, create_states, sample_stages
from vaebm_jax.runtime.atomic_files import write_atomically, write_json
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import task_of
from vaebm_jax.training.checkpoints import load_config
from vaebm_jax.training.loop import train

ROOT = pathlib.Path(__file__).parents[1]
SEEDS = 0, 1, 2


def shipped(name: str, variant: str = '') -> Config:
    """A config of configs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'configs' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def changed(config: Config, settings: dict[str, Any]) -> Config:
    """The config with some settings, by dotted name, replaced."""
    for name, value in settings.items():
        section, _, field = name.rpartition('.')
        if section:
            value = dataclasses.replace(getattr(config, section), **{field: value})
        config = dataclasses.replace(config, **{section or field: value})
    return config


def of_steps(config: Config, num_steps: int) -> Config:
    """The config with so many steps, its warm start and schedule in proportion."""
    share = num_steps / config.num_steps
    settings = {
        'num_steps': num_steps,
        'warmup_steps': round(share * config.warmup_steps),
        'schedule.energy_steps': round(share * config.schedule.energy_steps),
    }
    return changed(config, settings)


def cost(config: Config) -> int:
    """The operations of a run: of its warm start, and of the steps after it."""
    if not METHODS[config.method].warm_start:
        return config.num_steps * operations.count(config)
    warmup = min(config.warmup_steps, config.num_steps)
    total = (config.num_steps - warmup) * operations.count(config)
    return total + (warmup * operations.count(config, is_warm_start=True) if warmup else 0)


def of_cost(config: Config, total: int) -> Config:
    """The config with as many steps as cost so many operations, in the same proportion."""
    ratio = total / cost(config)
    return dataclasses.replace(
        config,
        num_steps=max(1, round(ratio * config.num_steps)),
        warmup_steps=round(ratio * config.warmup_steps),
    )


def make_table(
    folder: str,
    only: list[str],
    whole: Config,
    settings: dict[str, dict[str, Any]],
    columns: dict[str, tuple[str, str]],
    judge: Callable[[str, pathlib.Path], dict[str, dict[str, float]]],
    **labels: Any,
) -> None:
    """Makes the rows that are not made yet, seed after seed, and writes the table after each.

    A row is `<folder>/<name>_<seed>.json`, its settings and scores, and `.png`, its samples.

    Args:
      folder: of the rows and of `table.md`.
      only: the values of `--only`; none: every row with SEEDS.
      whole: the config whose cost all rows get.
      settings: by the name of a row, what it changes in that config.
      columns: as of `write_page`.
      judge: `(name, workdir) -> {stage: scores}`; may leave a picture, `strip.png`, in the workdir.
      labels: what else a row holds.
    """
    out = pathlib.Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name, seed in chosen(only, settings):
        path = out / f'{name}_{seed}.json'
        if not path.exists():
            config = config_of(whole, settings[name], name=name, seed=seed)
            row = train_and_judge(config, functools.partial(judge, name), path.with_suffix('.png'))
            write_json(path, {'row': name, 'seed': seed} | labels | row)
        write_page(out, list(settings), columns)
    print((out / 'table.md').read_text())


def chosen(only: list[str], names: Iterable[str]) -> list[tuple[str, int]]:
    """The rows that `--only=NAME` or `--only=NAME,SEED` name; without it all, seed after seed."""
    if not only:
        return [(name, seed) for seed in SEEDS for name in names]
    rows = []
    for text in only:
        name, _, seed = text.partition(',')
        if name not in names or not (seed.isdecimal() or text == name):
            known = ', '.join(names)
            raise UserError(f'--only must be NAME or NAME,SEED of {known}, got {text}')
        rows += [(name, seed) for seed in ([int(seed)] if seed else SEEDS)]
    return rows


def config_of(whole: Config, settings: dict[str, Any], **labels: Any) -> Config:
    """A row's config, with as many steps as cost what those of the whole config do."""
    return of_cost(changed(whole, settings | labels), cost(whole))


def train_and_judge(
    config: Config,
    judge: Callable[[pathlib.Path], dict[str, dict[str, float]]],
    picture: pathlib.Path,
) -> dict[str, Any]:
    """Trains a run in a folder of its own, and scores it: the row, and its picture."""
    steps = config.num_steps
    config = dataclasses.replace(
        config, log_every=max(1, steps // 20), sample_every=steps, checkpoint_every=steps
    )
    validate(config)
    row = {'steps': steps, 'parameters': parameters(config), 'settings': flatten(config)}
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / 'run'
        start = time.process_time()
        try:
            train(config, workdir, preview=task_of(config).preview)
        except UserError as error:  # It went on diverging.
            row['failed'] = str(error)
        row['cpu_minutes'] = (time.process_time() - start) / 60
        if 'failed' not in row:
            row['stages'] = judge(workdir)
            metrics = (workdir / 'metrics.jsonl').read_text()
            row['rollbacks'] = metrics.count('"event": "rollback"')
            strip, last = workdir / 'strip.png', workdir / 'samples' / f'step_{steps:08d}.png'
            shutil.copyfile(strip if strip.exists() else last, picture)
    return row


def parameters(config: Config) -> dict[str, int]:
    """The number of parameters of each model."""
    states = jax.eval_shape(lambda key: create_states(key, config), jax.random.key(0))
    return {
        name: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(model.params))
        for name, model in states.models.items()
    }


def legibility(
    workdir: pathlib.Path, dataset: str, classifier: str, num_samples: int
) -> dict[str, dict[str, Any]]:
    """The scores of benchmarks/legibility.py, by stage."""
    program = ROOT / 'benchmarks' / 'legibility.py'
    flags = [f'--dataset={dataset}', f'--classifier={classifier}', f'--num_samples={num_samples}']
    subprocess.run([sys.executable, program, *flags, f'--workdir={workdir}'], check=True)
    scores = json.loads((workdir / 'legibility.json').read_text())
    return {name: scores[name] for name in sample_stages(load_config(workdir))}


def rows(folder: pathlib.Path) -> list[dict[str, Any]]:
    """All finished rows in a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob('*_[0-9]*.json'))]


def markdown(header: list[str], lines: list[list[Any]]) -> str:
    """A Markdown table."""
    cells = [header, ['---'] * len(header), *lines]
    return ''.join('| ' + ' | '.join(map(str, line)) + ' |\n' for line in cells)


def write_page(folder: pathlib.Path, names: list[str], columns: dict[str, tuple[str, str]]) -> None:
    """Writes `table.md`: a line for each stage of each method, and their pictures.

    Args:
      folder: of the rows, which have the scores of their stages in `stages`.
      names: of the rows, in the order of the table.
      columns: by title, a score of a stage and its format.
    """
    of_name = {name: [row for row in rows(folder) if row['row'] == name] for name in names}
    lines, pictures = [], []
    for name, runs in of_name.items():
        if not runs:
            continue
        seeds = ', '.join(str(run['seed']) for run in runs)
        finished = [run for run in runs if 'stages' in run]
        about = [seeds, runs[0]['steps'], f'{sum(runs[0]["parameters"].values()):,}']
        about.append(over(runs, 'cpu_minutes', '{:.1f}'))
        about.append(sum(run.get('rollbacks', 0) for run in runs))
        for stage in finished[0]['stages'] if finished else ():
            cells = [
                over([run['stages'][stage] for run in finished], key, form)
                for key, form in columns.values()
            ]
            lines.append([f'{name}, {stage}', *about, *cells])
        for run in runs:
            if 'failed' in run:
                lines.append([f'{name}, seed {run["seed"]}: {run["failed"]}', *about])
        picture = f'{name}_{runs[0]["seed"]}.png'
        if (folder / picture).exists():
            pictures.append(f'![{name}]({picture})\n')
    header = ['method, samples', 'seeds', 'steps', 'parameters', 'CPU minutes', 'roll-backs']
    page = ['# Runs at equal cost\n', markdown([*header, *columns], lines), *pictures]
    write_atomically(folder / 'table.md', '\n'.join(page).encode())


def over(rows: list[dict[str, Any]], key: str, form: str) -> str:
    """The mean of a value over rows, with the smallest and largest; '' if a row has none."""
    values = [row.get(key) for row in rows]
    if None in values:
        return ''
    mean = form.format(float(np.mean(values)))
    if len(values) == 1:
        return mean
    return f'{mean} ({form.format(min(values))} to {form.format(max(values))})'
