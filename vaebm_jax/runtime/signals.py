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
    """Holds back the first SIGTERM, SIGINT or SIGHUP; a second one ends the process at once.

    A second SIGHUP does not, for a terminal that closes may send several; none is noticed where
    nohup had it ignored.

    Yields a function that tells the name of the signal that has come, '' if none has. Outside the
    main thread, where Python handles no signals, it never tells one. With several processes it is
    to be asked once a call by each, and tells a signal to any of them in all of them at one call.
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
        # Not through Python's own stream, in whose middle the signal may have come.
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
        # JAX's runtime, where it is started, has the SIGTERM, and finds a call for all processes.
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
    """Lets SIGTERM and SIGHUP end the work as Ctrl-C does; not SIGHUP where nohup ignores it."""

    def hang_up(number, frame):
        signal.signal(number, signal.SIG_IGN)  # A terminal that closes may send several.
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if _notices_hangup():
        signal.signal(signal.SIGHUP, hang_up)


def _notices_hangup():
    return signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
