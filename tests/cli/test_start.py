"""How the command starts: by which names, with which configs, and Ctrl-C before it works."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from helpers.commands import ROOT, TINY, command

import vaebm_jax

MODULES = ('vaebm_jax', 'vaebm_jax.main')


def start(module, *arguments, cwd):
    return subprocess.Popen(
        [sys.executable, '-m', module, *arguments],
        cwd=cwd,
        env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


def heed_ctrl_c():
    """Tests in the background of a shell, and their children, would ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_package_is_a_command_too(tmp_path):
    out, errors = start('vaebm_jax', '--version', cwd=tmp_path).communicate()
    assert (out.split()[:2], errors) == (['vaebm_jax', vaebm_jax.__version__], '')


@pytest.mark.parametrize('module', MODULES)
def test_ctrl_c_while_it_is_imported_costs_one_line(tmp_path, module):
    process = start(module, '--config=digits', '--workdir=run', cwd=tmp_path)
    maps = pathlib.Path(f'/proc/{process.pid}/maps')
    if not maps.exists():
        pytest.skip('there is no /proc to see the import in')
    while 'jaxlib' not in maps.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, 'interrupted before the work began\n')
    assert not list(tmp_path.iterdir())


def test_importing_the_package_leaves_ctrl_c_alone():
    code = 'import signal, vaebm_jax\nassert signal.getsignal(2) is signal.default_int_handler'
    subprocess.run([sys.executable, '-c', code], check=True, preexec_fn=heed_ctrl_c)


def test_a_shipped_config_is_found_from_anywhere_and_the_workdir_alone_resumes(tmp_path):
    helped = command('--help', '--config', 'mnist:paper', cwd=tmp_path)
    assert (helped.returncode, helped.stderr) == (0, '')
    assert "\nname = 'mnist_paper'\n" in helped.stdout
    started = command('--config=digits', '--workdir=run', *TINY, cwd=tmp_path)
    assert started.returncode == 0, started.stderr
    resumed = command('--workdir=run', '--config.num_steps=4', cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert 'resume: from step 3 in run' in resumed.stderr
    assert (tmp_path / 'run/samples/step_00000004.png').is_file()


def test_a_file_goes_before_a_shipped_config_of_its_name(tmp_path):
    """As a path without a suffix was read before."""
    text = 'from vaebm_jax import config as c\n\n\ndef get_config():\n    return c.Config(seed=7)\n'
    (tmp_path / 'digits').write_text(text)
    result = command('--help', '--config=digits', cwd=tmp_path)
    assert '\nseed = 7\n' in result.stdout, result.stderr
