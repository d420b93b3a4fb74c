"""`~` in every path, homes and caches that cannot be written, and names of outputs."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers.commands import ROOT, TINY
from helpers.configs import tiny

import vaebm_jax
from vaebm_jax.config import DataConfig
from vaebm_jax.data.loading import load_images
from vaebm_jax.evaluation import scores
from vaebm_jax.evaluation.inception import load_inception
from vaebm_jax.runtime import atomic_files
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training.loop import train


def command(*arguments, cwd, **environment):
    """A command line with another environment."""
    return subprocess.run(
        [sys.executable, '-m', 'vaebm_jax.main', *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {'JAX_PLATFORMS': 'cpu'} | {k: str(v) for k, v in environment.items()},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A home directory with a config, a run and nothing else."""
    home = tmp_path_factory.mktemp('home')
    shutil.copy(ROOT / 'configs/digits.py', home)
    train(tiny(), home / 'runs/tiny')
    return home


@pytest.mark.parametrize('apart', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_home_directory_in_flags(home, tmp_path, apart):
    """bash leaves ~ after = alone."""
    flags = {'--config': '~/digits.py', '--workdir': f'~/runs/new/{apart}'}
    given = [part for flag in flags.items() for part in (flag if apart else ['='.join(flag)])]
    result = command(*given, *TINY, cwd=tmp_path, HOME=home)
    assert result.returncode == 0, result.stderr
    assert (home / 'runs/new' / str(apart) / 'checkpoints/3').is_dir()
    assert f'pictures in {home}/runs/new/{apart}/samples' in result.stderr
    assert not [path for path in tmp_path.rglob('*') if '~' in str(path)]
    result = command('--mode=report', f'--workdir=~/runs/new/{apart}', cwd=tmp_path, HOME=home)
    assert result.stdout == f'{home}/runs/new/{apart}/report.html\n', result.stderr


def test_the_home_directory_in_the_api(home, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(home))
    monkeypatch.chdir(tmp_path)
    states, config = vaebm_jax.load('~/runs/tiny')
    assert int(states.step) == 6
    train(dataclasses.replace(config, init_from='~/runs/tiny', num_steps=1), '~/runs/after')
    assert (home / 'runs/after/checkpoints/1').is_dir()
    assert not list(tmp_path.iterdir())
    for read in (
        lambda: load_inception('~/weights.npz'),
        lambda: load_images(DataConfig('folder', '~/nowhere')),
        lambda: load_images(DataConfig('mnist', '~/nowhere')),
        lambda: vaebm_jax.load('~/nowhere'),
    ):
        with pytest.raises(UserError, match='nowhere|weights'):
            read()
    np.savez(home / 'weights.npz', a=np.zeros(2))
    with pytest.raises(UserError, match='whose layers are not those'):
        load_inception('~/weights.npz')


@pytest.mark.parametrize('path', ['~nobody_has_this_name', '~nobody_has_this_name/x'])
def test_a_home_that_there_is_not_is_told_and_no_folder_is_made(tmp_path, path):
    for given in (['--workdir=' + path], ['--config=' + path, '--workdir=run']):
        config = [f'--config={ROOT}/configs/digits.py'] if len(given) == 1 else []
        result = command(*config, *given, *TINY, cwd=tmp_path)
        assert result.returncode == 1 and not list(tmp_path.iterdir())
        (line,) = result.stderr.splitlines()
        assert line.startswith('error: a path that begins with ~') and path in line
    with pytest.raises(UserError, match='there is none for ~nobody'):
        load_images(DataConfig('folder', path))
    assert atomic_files.at_home('./' + path) == pathlib.Path(path)


@pytest.mark.parametrize(
    'kind',
    [
        'a file below',
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ('no home', 'a file', 'a file of that name', 'no home known')
        ),
    ],
)
def test_a_cache_that_cannot_be_written_ends_no_work(home, tmp_path, weights, kind):
    """Read-only folders are the same to it, but not to root, who may run this."""
    cache = tmp_path / 'cache'
    environment = {
        'no home': {'HOME': '/dev/null', 'XDG_CACHE_HOME': ''},
        'a file': {'XDG_CACHE_HOME': cache},
        'a file below': {'XDG_CACHE_HOME': cache},
        'a file of that name': {'XDG_CACHE_HOME': tmp_path, 'JAX_COMPILATION_CACHE_DIR': cache},
        'no home known': {'XDG_CACHE_HOME': '~nobody_has_this_name'},
    }[kind]
    if kind == 'a file below':
        cache.mkdir()
        (cache / 'vaebm_jax').touch()
    elif kind != 'no home known':
        cache.touch()
    run = shutil.copytree(home / 'runs/tiny', tmp_path / 'run')
    (tmp_path / 'work').mkdir()
    result = command(
        *('--mode=evaluate', f'--workdir={run}', '--num_samples=20', '--num_reference=30'),
        f'--inception_weights={weights}',
        cwd=tmp_path / 'work',
        **environment,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads((run / 'evaluation.json').read_text())['refined']['fd_64'] > 0
    said = [line for line in result.stderr.splitlines() if ' not cached' in line]
    starts = ['compiled programs are not cached', 'statistics of real images are not cached']
    # Without any home the statistics are kept in the workdir; in the fourth the two are apart.
    starts = starts[:1] if kind in ('a file of that name', 'no home known') else starts
    assert [line[: len(start)] for line, start in zip(said, starts, strict=True)] == starts
    assert 'Warning' not in result.stderr and not list((tmp_path / 'work').iterdir())


def test_a_disk_that_is_full_later_and_a_damaged_cache(tmp_path, weights, capsys):
    """The statistics of the first call, whatever of the folder can be written or read."""
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    loaded = load_inception(weights)
    first = scores.reference_statistics(loaded, images, tmp_path / 'cache')
    (file,) = (tmp_path / 'cache').iterdir()
    file.write_bytes(b'')  # As a power cut leaves it.
    capsys.readouterr()
    again = scores.reference_statistics(loaded, images, tmp_path / 'cache')
    assert 'cached' not in capsys.readouterr().err and file.stat().st_size > 0
    file.unlink()
    (tmp_path / 'cache' / file.with_suffix('.parts').name).touch()  # In the way of the parts.
    blocked = scores.reference_statistics(loaded, images, tmp_path / 'cache')
    assert capsys.readouterr().err.count('not cached') == 1
    for known in (again, blocked):
        np.testing.assert_array_equal(known.moments[64].products, first.moments[64].products)
        np.testing.assert_array_equal(known.features, first.features)
