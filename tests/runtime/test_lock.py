import os
import signal
import subprocess
import sys

import pytest

from vaebm_jax.runtime.errors import UserError
from vaebm_jax.runtime.lock import locked


def test_a_second_run_is_refused_while_the_first_lives(tmp_path):
    with locked(tmp_path):
        refused = rf'workdir .* is in use by another run \(process {os.getpid()} on .*\)'
        with pytest.raises(UserError, match=refused), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_what_a_killed_run_left_locks_nothing(tmp_path):
    code = (
        'import os, pathlib, signal, sys\n'
        'from vaebm_jax.runtime.lock import locked\n'
        'with locked(pathlib.Path(sys.argv[1])):\n'
        '    os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    killed = subprocess.run([sys.executable, '-c', code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL and (tmp_path / '.lock').read_text()
    with locked(tmp_path):
        assert f'process {os.getpid()} on ' in (tmp_path / '.lock').read_text()
