import shutil
import subprocess
import sys

import pytest
from helpers.commands import ROOT, TINY, command


def test_one_command_trains_and_the_same_command_goes_on(tmp_path):
    arguments = [f'--config={ROOT}/configs/digits.py', '--workdir=run', *TINY]
    first = command(*arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    lines = first.stderr.splitlines()
    assert lines[0].startswith('jax ') and lines[0].endswith('1 x cpu (cpu)')
    assert lines[-1] == 'finished: step 3 of 3, pictures in run/samples'
    assert (tmp_path / 'run/samples/step_00000003.png').is_file()
    assert list((tmp_path / 'cache/vaebm_jax').iterdir()), 'the compilation cache is on by default'

    second = command(*arguments, '--config.num_steps=4', cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert 'resume: from step 3 in run' in second.stderr
    assert (tmp_path / 'run/samples/step_00000004.png').is_file()


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'error: --config must name a config file'),
        (['--config={digits}'], 'error: --workdir must name the folder'),
        (['--config=nowhere.py', '--workdir=run'], 'error: --config must name a config file, or'),
        (
            ['--config=configs/digits.py', '--workdir=run'],
            'error: --config: there is no file configs/digits.py; --config=digits is the shipped',
        ),
        (['--config={digits}', '--workdir=run', 'x'], 'error: every setting is a flag'),
        (
            ['--config={digits}', '--workdir=run', '--config.batch_size=0', '--config.dtype=f'],
            'error: batch_size must be at least 1, got 0; dtype must be one of float32, bfloat16',
        ),
        (
            ['--config={mnist}', '--workdir=run', '--config.data.dir=nowhere'],
            'error: mnist is not prepared in nowhere',
        ),
        (['--config={digits}', '--workdir=file'], 'error: workdir must be a folder that can be wr'),
    ],
)
def test_mistakes_cost_one_line(tmp_path, arguments, message):
    (tmp_path / 'file').touch()
    files = {name: ROOT / 'configs' / f'{name}.py' for name in ('digits', 'mnist')}
    result = command(*(argument.format(**files) for argument in arguments), cwd=tmp_path)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if not line.startswith(('jax', 'data'))]
    assert len(errors) == 1 and errors[0].startswith(message), result.stderr
    assert not (tmp_path / 'run').exists()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    result = command(f'--config={ROOT}/configs/digits.py', '--workdir=run', *TINY, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize('platform', ['cuda', 'gpu', 'tpu', 'nonsense'])
def test_a_platform_that_there_is_not_costs_one_line(tmp_path, platform):
    if platform != 'nonsense' and any(map(shutil.which, ['nvidia-smi', 'tpu-info'])):
        pytest.skip('this machine may have it')
    arguments = [f'--config={ROOT}/configs/digits.py', '--workdir=run', *TINY]
    result = command(*arguments, cwd=tmp_path, platform=platform)
    assert result.returncode == 1
    assert result.stderr.startswith(f'error: JAX_PLATFORMS={platform}: JAX finds no such device')
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / 'run').exists()


@pytest.mark.parametrize('mode', ['sample', 'evaluate', 'likelihood'])
def test_in_other_modes(trained, mode):
    before = sorted(trained.rglob('*'))
    result = command('--workdir=run', f'--mode={mode}', cwd=trained, platform='nonsense')
    assert result.returncode == 1
    assert result.stderr.startswith('error: JAX_PLATFORMS=nonsense: JAX finds no such device')
    assert len(result.stderr.splitlines()) == 1 and sorted(trained.rglob('*')) == before


def test_a_report_needs_no_device(trained):
    result = command('--workdir=run', '--mode=report', cwd=trained, platform='nonsense')
    assert (result.returncode, result.stderr) == (0, ''), result.stderr


def test_debug_shows_the_traceback(tmp_path):
    result = command('--debug', cwd=tmp_path)
    assert result.returncode == 1 and 'Traceback' in result.stderr


def test_the_functional_core_needs_nothing_else(tmp_path):
    """Importable where only jax, flax, optax and chex are."""
    missing = [
        'tensorflow_datasets',
        'orbax.checkpoint',
        'ml_collections',
        'sklearn',
        'grain',
        'tqdm',
        'PIL',
        'matplotlib',
        'skimage',
        'tensorboardX',
    ]
    code = (
        'import sys\n'
        f'sys.modules.update(dict.fromkeys({missing}))\n'
        'from vaebm_jax import Batch, States, create_states, energy_fn, generate\n'
        'from vaebm_jax import langevin_sample, train_step\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
