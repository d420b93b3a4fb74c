"""A signal ends a run between two calls, not in the middle of one."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator


class Interrupted(Exception):
    """The work stopped before its end, with nothing lost: the same command goes on with it."""


@contextlib.contextmanager
def noticed() -> Iterator[Callable[[], str]]:
    """Holds back the first SIGTERM or SIGINT; a second one ends the process at once.

    Yields a function that tells the name of the signal that has come, '' if none has. Outside the
    main thread, where Python handles no signals, it never tells one.
    """
    received = []

    def note(number, frame):
        del frame
        if received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(signal.Signals(number).name)
        # Not through Python's own stream, in whose middle the signal may have come.
        line = f'\n{received[0]}: stops when this call is done and saved; again: at once\n'
        os.write(sys.__stderr__.fileno(), line.encode())

    if threading.current_thread() is not threading.main_thread():
        yield lambda: ''
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received[0] if received else ''
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
