"""The figures of README.md and docs/ are those of recorded runs, and these of today's configs."""

import importlib.util
import json
import re

import pytest
from helpers.commands import ROOT
from helpers.configs import read_config

from vaebm_jax.config import Config, flatten

RUNS = {
    'digits': 'digits',
    'mnist': 'mnist',
    'fashion_mnist': 'fashion_mnist',
    'facades_64': 'facades:64',
}
# Where the data lay, and how often something was written: no part of what was trained.
FREE = ('data.dir', 'log_every', 'sample_every', 'checkpoint_every', 'keep_checkpoints')


def load_tool():
    spec = importlib.util.spec_from_file_location('results', ROOT / 'tools' / 'results.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


results = load_tool()


def test_every_record_is_of_a_shipped_config():
    assert {path.stem for path in results.RESULTS.glob('*.json')} == set(RUNS)


@pytest.mark.parametrize('name', RUNS)
def test_a_record_is_of_the_config_as_it_is_now(name):
    run = results.read(name)
    # As JSON has it: lists in place of tuples.
    config, default = (
        json.loads(json.dumps(flatten(config))) for config in (read_config(RUNS[name]), Config())
    )
    recorded = default | run['config']  # A field that came later has its default.
    differing = {field for field in config if config[field] != recorded[field]}
    assert not differing - set(FREE)
    assert set(run['config']) <= set(config)
    assert re.fullmatch('[0-9a-f]{40}', run['commit']) and run['commands'] and run['processor']
    assert run['evaluation']['checkpoint_step'] == config['num_steps']


@pytest.mark.parametrize('page', results.PAGES)
def test_tables_are_those_of_the_records(page):
    text = (ROOT / page).read_text()
    assert results.with_tables(text) == text, 'python tools/results.py tables writes them'
    assert '<!-- results: ' in text


def figures():
    """What the documents say of each config, in words of their own."""
    told = {}
    for name in ('mnist', 'fashion_mnist'):
        run = results.read(name)
        scores = run['legibility']
        told[name] = [
            results.percent(scores[s]['share_p90']) for s in ('ancestral', 'refined', 'test')
        ]
        told[name].append(f'{run["cpu_minutes"]} CPU min')
    run = results.read('facades_64')
    scores = run['evaluation']
    told['facades'] = [f'{run["cpu_minutes"]} CPU min']
    told['facades'] += [
        f'{scores[s]["psnr_hole"]:.2f}' for s in ('mean', 'mean_ancestral', 'fill_ridge')
    ]
    told['facades'] += [f'{scores[s]["fd_64"]:.3f}' for s in ('refined', 'ancestral', 'fill_ridge')]
    return told


def test_configs_tell_the_figures_of_the_records():
    told = figures()
    for name in ('mnist', 'fashion_mnist'):
        accuracy = results.read(name)['legibility']['classifier_accuracy']
        told[name].append(results.percent(accuracy))
    for name, expected in told.items():
        text = ' '.join((ROOT / 'configs' / f'{name}.py').read_text().split())
        assert not [figure for figure in expected if figure not in text], name


def test_the_first_table_of_results_tells_the_figures_of_the_records():
    rows = (ROOT / 'docs' / 'results.md').read_text().split('\n| [`configs/')[1:]
    for name, expected in figures().items():
        (row,) = [row for row in rows if row.startswith((f'{name}.py`', f'{name}.py:64`'))]
        row = row.split('\n\n')[0]
        assert not [figure for figure in expected if figure not in row], name


def test_another_figure_is_another_table(monkeypatch):
    """The comparison sees a figure that changed by a last digit."""
    page = (ROOT / 'README.md').read_text()
    runs = {name: results.read(name) for name in RUNS}
    runs['mnist']['legibility']['refined']['share_p90'] += 0.002
    monkeypatch.setattr(results, 'read', runs.get)
    assert results.with_tables(page) != page
