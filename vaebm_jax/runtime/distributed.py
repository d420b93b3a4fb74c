"""Several processes at one run: how they find each other, agree, share work, and end.

The runtime is JAX's own. With one process every function here is the plain thing: nothing is
started, nothing is sent, nothing waits.
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

# A process that has said nothing for so long is taken for dead, and JAX ends the others. Short
# enough that a lost machine costs a minute, long enough for one whose disk or network stalls.
_HEARTBEAT_SECONDS = 60
_GRACE_SECONDS = 3.0
# For the others' work, such as an evaluation by process 0; the death of a process ends it earlier.
_PATIENCE_SECONDS = 7 * 24 * 3600
# How an error of JAX's runtime begins where another process is gone, found by killing one of two
# under JAX 0.10 and 0.12. From the service of process 0: UNAVAILABLE where that process is gone,
# DEADLINE_EXCEEDED or ABORTED where a wait ended in vain, and INTERNAL with the mark of the service
# where its watch missed another's heartbeat.
_WATCHED = re.compile(r'INTERNAL: .*tensorflow\.CoordinationServiceError', re.DOTALL)
_SERVICE = re.compile(rf'UNAVAILABLE: |DEADLINE_EXCEEDED: |ABORTED: |{_WATCHED.pattern}', re.DOTALL)
# From a collective: UNKNOWN (Gloo) or INTERNAL (NCCL), whatever went wrong, so that only the words
# behind the code and the library's name tell that it was the connection.
_COLLECTIVE = re.compile(
    r'(UNKNOWN|INTERNAL): (\S+: )?(Gloo|NCCL) .* failed: .*'
    r'(onnection (closed|reset|refused)|roken pipe|remote process exited|imed out)',
    re.DOTALL,
)

LOSS = (
    'another process of the run has ended, whose own lines say why; started again in all of them, '
    'the same command goes on from the newest checkpoint'
)

T = TypeVar('T')
_waits = itertools.count()


def initialize(
    mode: str = 'auto',
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes of the run. Before anything asks JAX for its devices.

    Args:
      mode: auto: as `jax.distributed` finds them (TPU slices, SLURM, Kubernetes, Open MPI), alone
        where it finds none; explicit: as the other arguments say; off: alone.
      coordinator_address: HOST:PORT of process 0.
      num_processes: how many there are.
      process_id: which of them this is, from 0 on.

    Raises:
      UserError: for arguments that are missing or contradict each other, and for a cluster that
        was found but cannot be joined.
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
            return  # No cluster: alone.
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
    """Whether this is the process that says, writes and decides."""
    return jax.process_index() == 0


def agreed(decide: Callable[[], T]) -> T:
    """What process 0 decides, known to all; where it raises a UserError, all do.

    Args:
      decide: returns what JSON can hold; called by process 0 alone, while the others wait.
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
    """Raises a UserError in all processes if one of them was started with other settings."""
    if not in_all(agreed(lambda: settings) == settings):
        raise UserError(
            'all processes of a run must be started with the same settings, but one has others '
            'than process 0'
        )


def in_all(is_right: bool) -> bool:
    """Whether something holds in every process."""
    return bool(np.all(multihost_utils.process_allgather(np.bool_(is_right))))


def wait_for_all(name: str) -> None:
    """Returns when all processes have come here, however long that takes.

    Not by a collective of the devices, as JAX's own way is: on CPUs those wait half an hour.
    """
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        wait = multihost.get_barrier_sync_fn()
        wait(key=f'{name} {next(_waits)}', timeout_ms=1000 * _PATIENCE_SECONDS)


def share(count: int) -> range:
    """Which of `count` pieces of work this process does beforehand; alone, it does none so."""
    num_processes = jax.process_count()
    return range(jax.process_index(), count if num_processes > 1 else 0, num_processes)


def is_loss(error: BaseException) -> bool:
    """Whether an error of the runtime tells that another process has ended.

    Told by its type and its status code. A collective of a pmapped function fails with a plain
    ValueError, which must be one of a collective word for word: any other is a defect of ours.
    """
    if not jax.distributed.is_initialized():
        return False
    text = str(error)
    if isinstance(error, jax.errors.JaxRuntimeError):
        return bool(_SERVICE.match(text) or _COLLECTIVE.match(text))
    return type(error) is ValueError and bool(_COLLECTIVE.match(text))


def leave(status: int, error: BaseException | None = None) -> None:
    """Ends a process that stops before its work is done, without waiting for the others.

    A regular end waits for all, who may be waiting for this one. Process 0 holds the runtime that
    tells the others' ends, and goes a little later, so that they can tell theirs; not where the
    error tells that the runtime's own watch has found a loss, for then it is aborting them all.

    After an interruption, which is no error, a computation may still be under way: Python would
    crash as it takes itself apart beside it, and ends at once.
    """
    if error is not None and not jax.distributed.is_initialized():
        sys.exit(status)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    if jax.distributed.is_initialized() and is_first() and not _WATCHED.match(str(error)):
        time.sleep(_GRACE_SECONDS)
    os._exit(status)
