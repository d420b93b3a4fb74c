"""One run at a time in a workdir."""

import contextlib
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

from vaebm_jax.runtime import distributed, log
from vaebm_jax.runtime.errors import UserError


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of `workdir` while this one works there.

    The operating system releases the lock when the process ends in any way: a file `.lock` left by
    a killed run locks nothing. With several processes, process 0 holds the lock for all.

    Raises:
      UserError: if another run holds it, or if not all processes of this one see the same folder.
    """
    with contextlib.ExitStack() as stack:
        holder = distributed.agreed(lambda: stack.enter_context(_held(workdir)))
        path = workdir / '.lock'
        if not distributed.in_all(path.is_file() and path.read_text() == holder):
            raise UserError(
                f'workdir must be on a disk that all processes share: not every one of them sees '
                f'what process 0 writes to {workdir.absolute()}'
            )
        yield


@contextlib.contextmanager
def _held(workdir):
    with (workdir / '.lock').open('a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).strip() or 'a process that does not say which'
            raise UserError(
                f'workdir {workdir} is in use by another run ({holder}); take another workdir, or '
                'wait until that one has ended'
            ) from error
        except OSError as error:
            log.say(
                f'{workdir} is on a file system without locks ({error.strerror}): see to it '
                'yourself that no second run uses it'
            )
        holder = f'process {os.getpid()} on {socket.gethostname()}\n'
        file.truncate(0)
        file.write(holder)
        file.flush()
        os.fsync(file.fileno())
        yield holder
