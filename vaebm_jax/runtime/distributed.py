"""Several processes in one run: how they find each other, agree, share work, and end.

By `jax.distributed`. With one process no function here starts, sends or waits for anything.
"""

import contextlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from vaebm_jax.runtime.errors import UserError

# A process without a heartbeat for so long counts as dead, and JAX ends the others. Short
# enough that a lost machine costs a minute, long enough for a disk or network that stalls.
_HEARTBEAT_SECONDS = 60
_GRACE_SECONDS = 3.0
# How long to wait for other processes' work, such as an evaluation by process 0; the death of a
# process ends the wait earlier.
_PATIENCE_SECONDS = 7 * 24 * 3600
# How an error of JAX's runtime begins if another process has ended, found by killing one of two
# under JAX 0.10 and 0.12. From the service of process 0: UNAVAILABLE if that process has ended,
# DEADLINE_EXCEEDED or ABORTED if a wait failed, and INTERNAL with the service's name if its
# watchdog missed another's heartbeat.
_WATCHED = re.compile(r'INTERNAL: .*tensorflow\.CoordinationServiceError', re.DOTALL)
_SERVICE = re.compile(rf'UNAVAILABLE: |DEADLINE_EXCEEDED: |ABORTED: |{_WATCHED.pattern}', re.DOTALL)
# From a collective: UNKNOWN (Gloo) or INTERNAL (NCCL), for any error, so only the words after the
# code and the library's name say that it was the connection.
_COLLECTIVE = re.compile(
    r'(UNKNOWN|INTERNAL): (\S+: )?(Gloo|NCCL) .* failed: .*'
    r'(onnection (closed|reset|refused)|roken pipe|remote process exited|imed out)',
    re.DOTALL,
)

LOSS = (
    'another process of the run has ended, and its log says why; started again in all processes, '
    'the same command resumes from the newest checkpoint'
)

T = TypeVar('T')
_waits = itertools.count()


def initialize(
    mode: str = 'auto',
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes of the run. To be called before JAX is asked for its devices.

    Args:
      mode: auto: as `jax.distributed` detects (TPU slices, SLURM, Kubernetes, Open MPI), else one
        process; explicit: by the other arguments; off: one process.
      coordinator_address: HOST:PORT of process 0.
      num_processes: number of processes.
      process_id: index of this process, from 0.

    Raises:
      UserError: if arguments are missing or contradict each other, or a cluster was detected but
        cannot be joined.
    """
    where = {
        'coordinator_address': coordinator_address,
        'num_processes': num_processes,
        'process_id': process_id,
    }
    given = [f'--{name}' for name, value in where.items() if value is not None]
    if mode != 'explicit' and given:
        raise UserError(
            f'{", ".join(given)} must come with --distributed=explicit, got --distributed={mode}'
        )
    if mode == 'off':
        return
    if mode == 'explicit':
        _check(**where)
        where['cluster_detection_method'] = 'deactivate'
    try:
        jax.distributed.initialize(**where, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    except Exception as error:
        if mode == 'auto' and 'coordinator_address should be defined' in str(error):
            return  # No cluster: one process.
        reason = ' '.join(str(error).split())[:300]
        other = '; --distributed=off trains in this process alone' if mode == 'auto' else ''
        raise UserError(
            f'--distributed={mode}: cannot join the cluster ({reason}){other}'
        ) from error


def _check(coordinator_address, num_processes, process_id):
    missing = [
        flag
        for flag, value in (
            ('--coordinator_address=HOST:PORT', coordinator_address),
            ('--num_processes', num_processes),
            ('--process_id', process_id),
        )
        if value is None
    ]
    if missing:
        raise UserError(f'--distributed=explicit needs {", ".join(missing)}, too')
    host, _, port = coordinator_address.rpartition(':')
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(
            '--coordinator_address must be HOST:PORT of process 0, the same in all processes, '
            f'got {coordinator_address!r}'
        )
    if not 0 <= process_id < num_processes:
        raise UserError(
            f'--process_id must be from 0 to --num_processes - 1 = {num_processes - 1}, '
            f'got {process_id}'
        )


def is_first() -> bool:
    """Whether this is process 0, which logs, writes and decides."""
    return jax.process_index() == 0


def agreed(decide: Callable[[], T]) -> T:
    """Process 0's decision, broadcast to all; if it raises a UserError, all processes do.

    Args:
      decide: returns a value that JSON can hold; called by process 0 only, while the others wait.
    """
    if jax.process_count() == 1:
        return decide()
    message = {}
    if is_first():
        try:
            message = {'value': decide()}
        except UserError as error:
            message = {'error': str(error)}
    wait_for_all('decided')
    content = np.frombuffer(json.dumps(message).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    content = content if is_first() else np.zeros(length, np.uint8)
    message = json.loads(multihost_utils.broadcast_one_to_all(content).tobytes())
    if 'error' in message:
        raise UserError(message['error'])
    return message['value']


def check_alike(settings: str) -> None:
    """Raises a UserError in all processes if their settings differ."""
    if not in_all(agreed(lambda: settings) == settings):
        raise UserError(
            'all processes of a run must be started with the same settings, but one has others '
            'than process 0'
        )


def in_all(is_right: bool) -> bool:
    """Whether `is_right` is true in every process."""
    return bool(np.all(multihost_utils.process_allgather(np.bool_(is_right))))


def wait_for_all(name: str) -> None:
    """A barrier: returns when all processes have called it, however long that takes.

    Not by a collective of the devices, as JAX's own barrier: on CPUs those wait only half an hour.
    """
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        wait = multihost.get_barrier_sync_fn()
        wait(key=f'{name} {next(_waits)}', timeout_ms=1000 * _PATIENCE_SECONDS)


def share(count: int) -> range:
    """Which of `count` parts of the work this process does in advance; none with one process."""
    num_processes = jax.process_count()
    return range(jax.process_index(), count if num_processes > 1 else 0, num_processes)


def is_loss(error: BaseException) -> bool:
    """Whether an error of the runtime means that another process has ended.

    Recognized by its type and its status code. A collective of a pmapped function fails with a
    plain ValueError, whose text must match exactly: any other is a bug of the package.
    """
    if not jax.distributed.is_initialized():
        return False
    text = str(error)
    if isinstance(error, jax.errors.JaxRuntimeError):
        return bool(_SERVICE.match(text) or _COLLECTIVE.match(text))
    return type(error) is ValueError and bool(_COLLECTIVE.match(text))


def leave(status: int, error: BaseException | None = None) -> None:
    """Ends a process that stops before its work is done, without waiting for the others.

    A regular exit waits for all processes, which may be waiting for this one. Process 0 hosts the
    runtime's service that reports ended processes, and exits a little later, so that the others can
    report first; not if the runtime's watchdog has found the loss, for then it aborts all of them.

    After an interruption, which is not an error, a computation may still be running: Python would
    crash in its regular exit, so the process ends at once.
    """
    if error is not None and not jax.distributed.is_initialized():
        sys.exit(status)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    if jax.distributed.is_initialized() and is_first() and not _WATCHED.match(str(error)):
        time.sleep(_GRACE_SECONDS)
    os._exit(status)
