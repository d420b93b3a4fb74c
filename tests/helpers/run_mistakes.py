"""Runs command lines, each in a process of its own, and tells what came of them.

    python tests/helpers/run_mistakes.py < CASES > RESULTS

CASES is JSON, a list of lists of arguments; the working directory is where they run. RESULTS has
for each its exit status, its lines on stderr, and which files it changed. The package is imported
once and every command line is a fork of that, a tenth of a second each.
"""

import hashlib
import json
import os
import pathlib
import sys
import tempfile
import traceback

os.environ['JAX_PLATFORMS'] = 'cpu'

from vaebm_jax import main  # noqa: E402


def run(arguments):
    """The exit status and stderr of one command line."""
    with tempfile.TemporaryFile() as errors:
        process = os.fork()
        if not process:
            os.dup2(errors.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.argv = ['main.py', *arguments]
            status = 0
            try:
                main.run()
            except SystemExit as end:
                status = end.code or 0
            except BaseException:
                traceback.print_exc()
                status = 1
            sys.stderr.flush()
            os._exit(status)
        _, status = os.waitpid(process, 0)
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), errors.read().decode()


def files():
    """What there is, by path: the digest of a file, None of a folder; a lock is nobody's work."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in sorted(pathlib.Path().rglob('*'))
        if path.name != '.lock'
    }


def results(cases):
    for arguments in cases:
        before = files()
        status, errors = run(arguments)
        changed = sorted(path for path, _ in before.items() ^ files().items())
        yield {'status': status, 'errors': errors.splitlines(), 'changed': changed}


if __name__ == '__main__':
    json.dump(list(results(json.load(sys.stdin))), sys.stdout)
