"""A signal ends a run between two calls, not in the middle of one."""

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


class Interrupted(Exception):
    """The work stopped before its end, with nothing lost: the same command goes on with it."""


@contextlib.contextmanager
def noticed() -> Iterator[Callable[[], str]]:
    """Holds back the first SIGTERM or SIGINT; a second one ends the process at once.

    Yields a function that tells the name of the signal that has come, '' if none has. Outside the
    main thread, where Python handles no signals, it never tells one. With several processes it is
    to be asked once a call by each, and tells a signal to any of them in all of them at one call.
    """
    received, calls = [], itertools.count()
    is_shared = jax.distributed.is_initialized()

    def note(number, frame):
        del frame
        if received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(signal.Signals(number).name)
        # Not through Python's own stream, in whose middle the signal may have come.
        line = f'\n{received[0]}: stops when this call is done and saved; again: at once\n'
        os.write(sys.__stderr__.fileno(), line.encode())
        if is_shared:
            os.kill(os.getpid(), signal.SIGTERM)

    def name():
        if is_shared:
            return 'SIGTERM' if multihost_utils.reached_preemption_sync_point(next(calls)) else ''
        return received[0] if received else ''

    numbers = ()
    if threading.current_thread() is threading.main_thread():
        # JAX's runtime, where it is started, has the SIGTERM, and finds a call for all processes.
        numbers = (signal.SIGINT,) if is_shared else (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield name
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
