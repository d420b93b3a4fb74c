"""The command line in processes of its own."""

import os
import pathlib
import subprocess
import sys
import time

from vaebm_jax.config import to_json

ROOT = pathlib.Path(__file__).parents[2]
TINY = [
    '--config.batch_size=8',
    '--config.num_steps=3',
    '--config.network.energy=(("dense",8),)',
    '--config.network.encoder=(("dense",8),)',
    '--config.network.decoder=(("dense",8),)',
    '--config.langevin.num_steps=2',
]


def command(*arguments, cwd, platform='cpu'):
    """From another folder, as a user's scheduler would."""
    return subprocess.run(
        [sys.executable, '-m', 'vaebm_jax.main', *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {'JAX_PLATFORMS': platform, 'XDG_CACHE_HOME': str(cwd / 'cache')},
        capture_output=True,
        text=True,
        check=False,
    )


def write_config(config, workdir):
    """A config file beside the workdir."""
    file = workdir.parent / 'config.py'
    file.write_text(
        f'from vaebm_jax.config import from_json\n\n\n'
        f'def get_config():\n    return from_json({to_json(config)!r})\n'
    )
    return file


def start(config, workdir, *arguments):
    """The command line on a config, in a process of its own."""
    file = write_config(config, workdir)
    return subprocess.Popen(
        [sys.executable, '-m', 'vaebm_jax.main', f'--config={file}', f'--workdir={workdir}']
        + list(arguments),
        cwd=ROOT,
        env=os.environ | {'JAX_PLATFORMS': 'cpu', 'XDG_CACHE_HOME': str(workdir.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
