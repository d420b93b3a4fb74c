"""Trains one recipe change by change at equal cost, and scores each: a table that grows over days.

    python benchmarks/ablation.py --out=runs/ablation --classifier=cifar16.npz \
        --rows=paper,known_z,recipe --seeds=0,1

The recipe is `configs/cifar10.py:small`. The rows of ROWS begin with the paper's teaching and add
its changes in turn; `without_...` takes one away from the whole. Each row gets the operations of
--steps steps of the recipe, counted from shapes, so a cheaper step is made more often. A finished
row is `<out>/<row>_<seed>.json`, with its settings and scores, and `.png`, ancestral samples on the
left and refined ones on the right; it is not made again. `<out>/table.md` has all rows there are.
The judge is benchmarks/legibility.py, which keeps its classifier in --classifier.
"""

import dataclasses
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import operations
import program
from absl import flags

from vaebm_jax.config import Config, flatten, validate
from vaebm_jax.runtime.atomic_files import write_json
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import task_of
from vaebm_jax.training.loop import train

ROOT = pathlib.Path(__file__).parents[1]

_OUT = flags.DEFINE_string('out', None, 'Folder of the rows and the table.', required=True)
_ROWS = flags.DEFINE_list('rows', [], 'Which rows to make; none: all.')
_SEEDS = flags.DEFINE_list('seeds', ['0', '1'], 'Seeds of each row.')
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


def changed(config: Config, settings: dict) -> Config:
    """The config with some settings, by dotted name, replaced."""
    for name, value in settings.items():
        section, field = name.split('.')
        inner = dataclasses.replace(getattr(config, section), **{field: value})
        config = dataclasses.replace(config, **{section: inner})
    return config


def recipe() -> Config:
    spec = importlib.util.spec_from_file_location('cifar10', ROOT / 'configs' / 'cifar10.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config('small')


def steps_of(config: Config, whole: Config, steps: int) -> int:
    """How many steps of one config cost as much as so many of the whole recipe."""
    return round(steps * operations.count(whole) / operations.count(config))


def make_row(name: str, seed: int, path: pathlib.Path) -> None:
    """Trains and scores one row, and writes its two files."""
    whole = recipe()
    config = changed(whole, ROWS[name])
    steps = steps_of(config, whole, _STEPS.value)
    config = dataclasses.replace(
        config,
        name=name,
        seed=seed,
        num_steps=steps,
        log_every=max(1, steps // 20),
        sample_every=steps,
        checkpoint_every=steps,
    )
    validate(config)
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / 'run'
        start = time.process_time()
        failed = ''
        try:
            train(config, workdir, preview=task_of(config).preview)
        except UserError as error:  # It went on diverging.
            failed = str(error)
        row = {
            'row': name,
            'seed': seed,
            'steps': steps,
            'cpu_minutes': (time.process_time() - start) / 60,
            'settings': flatten(config),
        }
        if failed:
            row['failed'] = failed
        else:
            judge(workdir)
            scores = json.loads((workdir / 'legibility.json').read_text())
            row |= {stage: scores[stage] for stage in ('ancestral', 'refined', 'test')}
            metrics = (workdir / 'metrics.jsonl').read_text()
            row['rollbacks'] = metrics.count('"event": "rollback"')
            shutil.copyfile(workdir / 'samples' / f'step_{steps:08d}.png', path.with_suffix('.png'))
        write_json(path, row)


def judge(workdir: pathlib.Path) -> None:
    flags = ['--dataset=cifar10', f'--classifier={_CLASSIFIER.value}', f'--workdir={workdir}']
    flags += [f'--num_samples={_NUM_SAMPLES.value}']
    subprocess.run([sys.executable, ROOT / 'benchmarks' / 'legibility.py', *flags], check=True)


def table(out: pathlib.Path) -> str:
    """All rows that are finished, in the order of ROWS, as Markdown."""
    lines = [
        '| row | seed | steps | CPU minutes | Frechet distance, ancestral | and refined | '
        'p >= 0.9, ancestral | and refined | recall, ancestral | and refined | smallest class | '
        'roll-backs |',
        '|---' * 12 + '|',
    ]
    files = [json.loads(path.read_text()) for path in out.glob('*_[0-9]*.json')]
    for row in sorted(files, key=lambda row: (list(ROWS).index(row['row']), row['seed'])):
        cells = [row['row'], row['seed'], row['steps'], f'{row["cpu_minutes"]:.1f}']
        if 'failed' in row:
            cells += [row['failed'][:60]] + [''] * 7
        else:
            stages = row['ancestral'], row['refined']
            cells += [f'{stage["frechet_distance"]:.1f}' for stage in stages]
            cells += [f'{stage["share_p90"]:.1%}' for stage in stages]
            cells += [f'{stage["recall"]:.2f}' for stage in stages]
            cells += [f'{row["refined"]["smallest_class_share"]:.1%}', row['rollbacks']]
        lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
    return '\n'.join(lines) + '\n'


def main(argv):
    del argv
    out = pathlib.Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    names = _ROWS.value or list(ROWS)
    if unknown := set(names) - set(ROWS):
        raise UserError(f'rows must be of {", ".join(ROWS)}, got {", ".join(sorted(unknown))}')
    for seed in map(int, _SEEDS.value):
        for name in names:
            path = out / f'{name}_{seed}.json'
            if not path.exists():
                make_row(name, seed, path)
            (out / 'table.md').write_text(table(out))
    print(table(out))


if __name__ == '__main__':
    program.run(main)
