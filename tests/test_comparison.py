"""Tables of runs at equal cost: benchmarks/comparison.py, and the rows of its tables."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from helpers.commands import ROOT

from vaebm_jax import config as c
from vaebm_jax.runtime.errors import UserError

sys.path.insert(0, str(ROOT / 'benchmarks'))
import comparison  # noqa: E402
import operations  # noqa: E402

COLUMNS = re.compile("^    '(.*)': \\('(\\w+)', '(.*)'\\),$", re.MULTILINE)

# In a process of its own: its flags have the names of main's.
ROWS_OF = """
import json, sys
from absl import flags
import comparison, {module} as table
from vaebm_jax.config import flatten, validate
flags.FLAGS(['', '--out=runs', *sys.argv[2:]])
whole, rows = table.whole(), {{}}
table_rows = getattr(table, 'rows', lambda: table.ROWS)()
for name, settings in table_rows.items():
    validate(comparison.changed(whole, settings))
for name in sys.argv[1].split(','):
    config = comparison.config_of(whole, table_rows[name], name=name, seed=1)
    rows[name] = flatten(config) | {{'cost': comparison.cost(config)}}
print(json.dumps(rows))
"""


def rows_of(module, names, *flags):
    done = subprocess.run(
        [sys.executable, '-c', ROWS_OF.format(module=module), names, *flags],
        cwd=ROOT / 'benchmarks',
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout)
    costs = [row.pop('cost') for row in rows.values()]
    assert max(costs) / min(costs) < 1.01
    return rows


def test_rows_of_the_ablation():
    rows = rows_of('ablation', 'paper,known_z,recipe', '--classifier=none.npz')
    paper, known_z, recipe = rows.values()
    assert paper['vae.known_z_weight'] == 0 == paper['vae.truth_weight']
    assert paper['energy.spectral_norm'] == 0
    assert known_z['vae.known_z_weight'] == recipe['vae.known_z_weight'] > 0
    assert known_z['energy.reference_std'] > 0 == recipe['energy.reference_std']
    assert recipe['num_steps'] == 3000 > paper['num_steps']  # Its chains are longer.


@pytest.mark.parametrize('dataset', ['mnist', 'fashion_mnist'])
def test_rows_of_table_1(dataset):
    rows = rows_of('table1', 'vaebm,vaebm_poster,dcgan,wgan_gp', f'--dataset={dataset}')
    assert rows['dcgan']['method'] == 'dcgan'
    assert rows['dcgan']['network.decoder'][1:] == [['up', n, 3] for n in (64, 32, 16)]
    assert rows['wgan_gp']['network.decoder'] == rows['vaebm']['network.decoder']
    assert rows['vaebm_poster']['vae.known_z_weight'] == 0 < rows['vaebm']['vae.known_z_weight']
    assert {row['seed'] for row in rows.values()} == {1}


def test_the_cost_of_a_warm_start_is_its_own():
    config = c.Config(num_steps=100, warmup_steps=60)
    of_step, of_start = operations.count(config), operations.count(config, is_warm_start=True)
    assert comparison.cost(config) == 60 * of_start + 40 * of_step
    halved = comparison.of_cost(config, comparison.cost(config) // 2)
    assert (halved.num_steps, halved.warmup_steps) == (50, 30)


def test_only():
    chosen = comparison.chosen(['a', 'b,7'], ['a', 'b'])
    assert chosen == [('a', 0), ('a', 1), ('a', 2), ('b', 7)]
    assert comparison.chosen([], ['a', 'b'])[:3] == [('a', 0), ('b', 0), ('a', 1)]
    for text in ('z', 'a,', 'a,x', 'z,1'):
        with pytest.raises(UserError, match=f'of a, b, got {text}$'):
            comparison.chosen([text], ['a', 'b'])


def test_a_row_is_trained_and_judged_and_the_page_reads_it(tmp_path, capsys):
    def judge(name, workdir):
        assert (workdir / 'checkpoints' / '4').exists()
        return {'ancestral': {'score': 0.5}, 'refined': {'score': 0.25 if name == 'b' else 0.5}}

    config = c.Config(num_steps=4, batch_size=8, langevin=c.LangevinConfig(num_steps=2))
    settings = {'a': {'method': 'vae'}, 'b': {'langevin.step_size': 0.003}}
    columns = {'Score': ('score', '{:.2f}'), 'Other': ('other', '{:.2f}')}
    make = lambda only: comparison.make_table(
        tmp_path, only, config, settings, columns, judge, split='val'
    )
    make(['b,0'])
    row = json.loads((tmp_path / 'b_0.json').read_text())
    assert (row['row'], row['seed'], row['split'], row['steps']) == ('b', 0, 'val', 4)
    assert row['settings']['langevin.step_size'] == 0.003
    assert row['parameters'].keys() == {'energy', 'encoder', 'decoder'}
    assert row['rollbacks'] == 0 < row['cpu_minutes']
    assert (tmp_path / 'b_0.png').read_bytes()[1:4] == b'PNG'

    # Other seeds: one with another score, and one that diverged.
    row['stages']['refined']['score'] = 0.75
    (tmp_path / 'b_1.json').write_text(json.dumps(row | {'seed': 1}))
    del row['stages']
    (tmp_path / 'b_2.json').write_text(json.dumps(row | {'seed': 2, 'failed': 'it diverged'}))
    before = (tmp_path / 'b_0.json').read_bytes()
    make(['b'])
    assert (tmp_path / 'b_0.json').read_bytes() == before  # It is not made again.
    title, _, _, _, ancestral, refined, failed, _, picture = (
        (tmp_path / 'table.md').read_text().strip().split('\n')
    )
    assert title == '# Runs at equal cost'
    assert ancestral.endswith('| 0.50 (0.50 to 0.50) |  |')
    assert refined.startswith('| b, refined | 0, 1, 2 | 4 |')
    assert refined.endswith('| 0.50 (0.25 to 0.75) |  |')
    assert failed.startswith('| b, seed 2: it diverged |')
    assert picture == '![b](b_0.png)'
    assert refined in capsys.readouterr().out


def test_rows_of_table_2():
    rows = rows_of('table2', 'vaebm,vae')
    assert rows['vae']['warmup_steps'] == 0 < rows['vaebm']['warmup_steps']


@pytest.mark.parametrize('name, module', [('mnist', 'table1'), ('facades_64', 'table2')])
def test_the_docs_have_the_rows_that_were_made(tmp_path, name, module):
    made = ROOT / 'docs' / 'rivals' / name
    shutil.copytree(made, tmp_path / 'made')
    source = (ROOT / 'benchmarks' / f'{module}.py').read_text()
    rows = re.findall("^    '(\\w+)': (?:\\{|_)", source, re.MULTILINE)
    columns = {title: tuple(column) for title, *column in COLUMNS.findall(source)}
    comparison.write_page(tmp_path / 'made', rows, columns)
    page = (made / 'table.md').read_text()
    assert (tmp_path / 'made' / 'table.md').read_text() == page
    lines = [line for line in page.splitlines() if line.startswith('|')]
    assert len(lines) > 2
    assert '\n'.join(lines) in (ROOT / 'docs' / 'rivals.md').read_text()
