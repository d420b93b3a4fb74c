"""README.md can be pasted: its Python runs; its flags, and those of other pages, are right."""

import dataclasses
import itertools
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from helpers.commands import ROOT
from helpers.configs import read_config, tiny
from helpers.runs import train

from vaebm_jax.config import to_json

README = (ROOT / 'README.md').read_text()
PACKAGE = (ROOT / 'PACKAGE.md').read_text()
PAGES = README + PACKAGE + (ROOT / 'docs' / 'guide.md').read_text()
BLOCKS = re.findall('^```python\n(.*?)^```$', README, re.MULTILINE | re.DOTALL)

# Everything but the work itself: flags, config file, workdir and what is wrong with them.
PARSE = """
import json, sys
from helpers import run_mistakes
from vaebm_jax import main
from vaebm_jax.runtime import distributed
distributed.initialize = lambda *arguments: None
main.RUN = dict.fromkeys(main.RUN, lambda config, workdir: None)
json.dump([run_mistakes.run(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A clone in which the commands of README were given: a real run, and settings of others."""
    folder = tmp_path_factory.mktemp('clone')
    (folder / 'configs').symlink_to(ROOT / 'configs')
    train(dataclasses.replace(tiny(), name='digits'), folder / 'runs' / 'digits')
    for name, config in (('mnist', 'mnist'), ('facades', 'facades:64')):
        (folder / 'runs' / name).mkdir()
        (folder / 'runs' / name / 'config.json').write_text(to_json(read_config(config)))
    return folder


@pytest.mark.parametrize('index', range(len(BLOCKS)))
def test_a_block_of_python_runs_alone(folder, monkeypatch, index):
    monkeypatch.chdir(folder)
    exec(compile(BLOCKS[index], f'README.md, Python block {index}', 'exec'), {'__name__': 'block'})


def test_there_are_blocks_of_python():
    assert len(BLOCKS) == README.count('```python') >= 3


def test_the_page_of_the_package_stands_alone():
    """An index shows it without the files beside it; its Python is a block of the README."""
    assert 'long_description = file: PACKAGE.md\n' in (ROOT / 'setup.cfg').read_text()
    assert '](' not in PACKAGE
    (block,) = re.findall('^```python\n(.*?)^```$', PACKAGE, re.MULTILINE | re.DOTALL)
    assert block in BLOCKS


STARTS = ('vaebm ', 'python -m ', 'python benchmarks/', 'python tools/', 'bash ', 'sbatch ')
SAME = '--config=configs/digits.py --workdir=runs/digits'  # What ... stands for.


def commands():
    """The lines of shell blocks, and the commands within the text."""
    shown = re.findall('^    (.*)$', PAGES, re.MULTILINE)
    text = re.sub('^```.*?^```$', '', PAGES, flags=re.MULTILINE | re.DOTALL)
    shown += re.findall('`([^`]+)`', text)
    shown = [line.replace('...', SAME) for line in shown if line.startswith(STARTS)]
    return [shlex.split(line, comments=True) for line in shown]


def is_not_config(word):
    return not word.startswith('--config=')


def test_the_flags_of_the_commands_are_right(folder):
    """Also those that the launch scripts hand on."""
    lines = [line[3:] for line in commands() if line[:3] == ['python', '-m', 'vaebm_jax.main']]
    lines += [line[1:] for line in commands() if line[0] == 'vaebm']
    lines = [line for line in lines if line]  # Without those that only name the command.
    assert len(lines) >= 9 and ['--workdir=runs/mnist', '--mode=report'] in lines
    scripts = [line for line in commands() if line[0] in ('bash', 'sbatch')]
    handed_on = [list(itertools.dropwhile(is_not_config, line)) for line in scripts]
    lines += [line for line in handed_on if line]
    report = ['--workdir=runs/mnist', '--mode=report']
    misspelled = [[*report, '--stepp=1'], [*report, '--config.sed=1']]
    done = subprocess.run(
        [sys.executable, '-c', PARSE],
        input=json.dumps([*lines, *misspelled]),
        cwd=folder,
        env=os.environ | {'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}', 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        check=True,
    )
    *results, unknown, no_setting = json.loads(done.stdout)
    wrong = [
        (line, errors) for line, (status, errors) in zip(lines, results, strict=True) if status
    ]
    assert not wrong
    assert unknown[0] == 1 and "Unknown command line flag 'stepp'" in unknown[1]
    assert no_setting[0] == 1 and 'there is no setting sed' in no_setting[1]


def test_the_scripts_of_the_commands_are_there_with_their_flags():
    scripts = [
        line for line in commands() if not {'vaebm', 'vaebm_jax', 'vaebm_jax.main'} & {*line}
    ]
    assert len(scripts) >= 5
    for line in scripts:
        (name,) = [word for word in line if word.startswith(('benchmarks/', 'tools/', 'launch/'))]
        text = (ROOT / name).read_text()
        if name.startswith('benchmarks/'):
            for flag in re.findall(r'--(\w+)', ' '.join(line)):
                assert re.search(rf"DEFINE_\w+\(\s*'{flag}'", text), f'{name} has no --{flag}'
