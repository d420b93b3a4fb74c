"""What the benchmarks share as programs."""

import sys
from collections.abc import Callable

from absl import app, logging

from vaebm_jax.runtime.errors import UserError


def run(main: Callable[[list[str]], None]) -> None:
    """Runs `main` with absl's flags, printing line by line, also to a file.

    A UserError and Ctrl-C are one line, and libraries' log lines are off.
    """
    logging.set_verbosity(logging.FATAL)
    sys.stdout.reconfigure(line_buffering=True)
    try:
        app.run(main)
    except UserError as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
