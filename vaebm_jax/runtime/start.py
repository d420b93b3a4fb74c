"""The start of the command line: until the work begins, Ctrl-C ends it with one line and 130.

The package's imports alone take seconds, so its first import is of this module.
"""

import os
import signal
import sys


def is_over() -> None:
    """The work begins: Ctrl-C raises KeyboardInterrupt, as usual."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command():
    """Whether the package is imported for its own command line, not by other code."""
    program = (getattr(sys, 'argv', None) or [''])[0]
    if program == '-m':  # While Python imports the parents of the module to run.
        return not {'vaebm_jax', 'vaebm_jax.main'}.isdisjoint(sys.orig_argv)
    return os.path.basename(program) == 'vaebm'


def _end(number, frame):
    del number, frame
    os.write(2, b'interrupted before the work began\n')
    os._exit(130)  # An exception may be lost in an import.


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
