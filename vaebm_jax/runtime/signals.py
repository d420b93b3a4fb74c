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
    """The work stopped before its end and is saved: the same command resumes it."""


@contextlib.contextmanager
def noticed() -> Iterator[Callable[[], str]]:
    """Defers the first SIGTERM, SIGINT or SIGHUP; a second one ends the process at once.

    A second SIGHUP does not, since a terminal that closes may send several; SIGHUP stays ignored
    under nohup.

    Yields a function that returns the name of the received signal, '' if there is none. Outside the
    main thread, where Python handles no signals, it always returns ''. With several processes each
    has to call it once per call of the training step; a signal to one of them is returned in all of
    them at the same call.
    """
    received, calls = [], itertools.count()
    is_shared = jax.distributed.is_initialized()

    def note(number, frame):
        del frame
        if received and number == signal.SIGHUP:
            return
        if received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(signal.Signals(number).name)
        # Not through Python's stream, which may be in the middle of a write.
        line = f'\n{received[0]}: stops when this call is done and saved; again: at once\n'
        with contextlib.suppress(OSError, ValueError, AttributeError):  # It is closed, or None.
            os.write(sys.__stderr__.fileno(), line.encode())
        if is_shared:
            os.kill(os.getpid(), signal.SIGTERM)

    def name():
        if is_shared:
            return 'SIGTERM' if multihost_utils.reached_preemption_sync_point(next(calls)) else ''
        return received[0] if received else ''

    numbers = ()
    if threading.current_thread() is threading.main_thread():
        # JAX's runtime, if started, handles SIGTERM and chooses a call common to all processes.
        numbers = (signal.SIGINT,) if is_shared else (signal.SIGTERM, signal.SIGINT)
        if _notices_hangup():
            numbers += (signal.SIGHUP,)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield name
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_as_ctrl_c() -> None:
    """Makes SIGTERM and SIGHUP end the work as Ctrl-C does; not SIGHUP if nohup ignores it."""

    def hang_up(number, frame):
        signal.signal(number, signal.SIG_IGN)  # A terminal that closes may send several.
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if _notices_hangup():
        signal.signal(signal.SIGHUP, hang_up)


def _notices_hangup():
    return signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
