"""Which flags act in which modes, what --help tells of them, and --config beside a workdir."""

import dataclasses
import time

import jax
import pytest
from helpers.commands import ROOT, command
from helpers.configs import tiny
from helpers.flags import ACTS, COMPUTING, EVERYWHERE

import vaebm_jax
from vaebm_jax.cli import flags
from vaebm_jax.config import Config, flatten, to_json


def test_the_list_is_whole():
    assert {flag.name for flag in flags.FLAGS} == set(ACTS)
    assert set(flags.MODES) == set(EVERYWHERE.split())


@pytest.mark.parametrize('mode', flags.MODES)
@pytest.mark.parametrize('flag', flags.FLAGS, ids=lambda flag: flag.name)
def test_a_flag_knows_its_modes(flag, mode):
    assert (mode in flag.modes) == (mode in ACTS[flag.name][0].split())


def test_version(tmp_path):
    for arguments in (['--version'], ['--version', '--mode=sample', '--workdir=nowhere']):
        result = command(*arguments, cwd=tmp_path)
        expected = f'vaebm_jax {vaebm_jax.__version__} (jax {jax.__version__})\n'
        assert (result.returncode, result.stdout, result.stderr) == (0, expected, '')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['--help', '--helpshort', '--helpfull', '-h', '-?'])
def test_help_tells_every_flag_and_mode(tmp_path, name):
    began = time.perf_counter()
    result = command(name, cwd=tmp_path)
    assert time.perf_counter() - began < 60  # Imports alone: nothing is compiled.
    assert (result.returncode, result.stderr) == (0, '')
    page = result.stdout
    assert '--help --config=FILE' in page and '--config.NAME=VALUE' in page
    assert all(len(line) <= 100 for line in page.splitlines())
    parts = {part.split('\n')[0]: part for part in page.split('\n--mode=')}
    assert list(parts)[1:] == list(flags.MODES)
    for flag, (modes, _) in ACTS.items():
        if modes not in (EVERYWHERE, COMPUTING):
            heads = (f'--{flag}', f'--[no]{flag}')
            told = [m for m in flags.MODES if any(head in parts[m] for head in heads)]
            assert set(told) >= set(modes.split()), flag
        assert page.count(f'\n  --{flag}=') + page.count(f'\n  --[no]{flag}\n') == 1, flag
    assert not list(tmp_path.iterdir())


def test_help_with_a_config_tells_every_setting_and_what_it_means(tmp_path):
    config = f'--config={ROOT}/configs/mnist.py:paper'
    result = command('--help', config, '--config.langevin.num_steps=7', cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, '')
    assert '\nlangevin.num_steps = 7\n    T, the number of steps.\n' in result.stdout
    assert "\nname = 'mnist_paper'\n" in result.stdout
    result = command('--help', '--config=nowhere.py', cwd=tmp_path)
    assert result.returncode == 1 and result.stderr.startswith('error: --config must name a config')
    assert len(result.stderr.splitlines()) == 1
    lines = flags.settings_text('', Config()).splitlines()
    for name, value in flatten(Config()).items():
        meaning = lines[lines.index(f'{name} = {value!r}') + 1]
        assert meaning.startswith('    ') and meaning.strip()


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A config, and files beside it; no checkpoint is needed to tell settings apart."""
    folder = tmp_path_factory.mktemp('flags')
    (folder / 'run').mkdir()
    config = dataclasses.replace(tiny(), num_steps=7)
    (folder / 'run' / 'config.json').write_text(to_json(config))
    layers = f'network=c.NetworkConfig(**{vars(config.network)})'
    settings = 'batch_size=8, latent_dim=4, log_every=2, sample_every=0, checkpoint_every=2'
    for name, langevin in (('same', 3), ('other', 5)):
        (folder / f'{name}.py').write_text(
            'from vaebm_jax import config as c\n\n\ndef get_config():\n'
            f'    return c.Config(num_steps=7, {settings}, {layers},\n'
            f'        langevin=c.LangevinConfig(num_steps={langevin}))\n'
        )
    return folder


@pytest.mark.parametrize('mode', ['sample', 'evaluate', 'report'])
def test_config_beside_a_workdir_with_its_settings(workdir, mode):
    result = command('--config=same.py', '--workdir=run', f'--mode={mode}', cwd=workdir)
    if mode == 'report':
        assert result.returncode == 0, result.stderr
    else:  # Past the settings.
        assert result.stderr.startswith('error: workdir has no checkpoint yet'), result.stderr


def test_config_beside_a_workdir_with_other_settings(workdir):
    arguments = ['--config=other.py', '--workdir=run', '--mode=sample']
    result = command(*arguments, '--config.batch_size=4', cwd=workdir)
    assert result.returncode == 1
    assert result.stderr == (
        'error: --config must have the settings of run, or be left out: '
        'langevin.num_steps is 5 there, 3 in the workdir\n'
    )
    result = command(*arguments, '--config.langevin.num_steps=40', cwd=workdir)
    assert result.stderr.startswith('error: workdir has no checkpoint yet'), result.stderr
