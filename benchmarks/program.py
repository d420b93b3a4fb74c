"""What the benchmarks share as programs."""

import sys
from collections.abc import Callable

from absl import app, logging

from vaebm_jax.runtime.errors import UserError


def run(main: Callable[[list[str]], None]) -> None:
    """Runs `main` with absl's flags; a UserError is one line, and libraries' log lines are off."""
    logging.set_verbosity(logging.FATAL)
    try:
        app.run(main)
    except UserError as error:
        sys.exit(f'error: {error}')
