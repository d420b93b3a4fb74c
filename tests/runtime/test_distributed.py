"""Several processes on this machine compute the run of one, save together, and end together."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers.commands import ROOT, wait_for, write_config
from helpers.devices import QUICK, assert_close, run_on_devices
from helpers.runs import rows

from vaebm_jax import load
from vaebm_jax.data.folder import Folder
from vaebm_jax.data.order import batch_indices, stream
from vaebm_jax.runtime import distributed
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.training.loop import train
from vaebm_jax.training.parallel import local_rows

PATIENCE = 900  # Seconds, on a machine that does other things too.


_spawned = []


@pytest.fixture(autouse=True)
def _nothing_is_left_running():
    yield
    for process in _spawned:
        process.kill()
    _spawned.clear()


def spawn(*arguments, **settings):
    process = subprocess.Popen(*arguments, **settings)
    _spawned.append(process)
    return process


def free_address():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{listener.getsockname()[1]}'


def environment(num_devices, folder):
    own = {'JAX_NUM_CPU_DEVICES': str(num_devices), 'XDG_CACHE_HOME': str(folder)}
    return os.environ | QUICK | own


def run_in_processes(folder, num_processes, num_devices, num_steps, dtype):
    """What every process has after training together, on so many devices each."""
    folder.mkdir()
    address = free_address()
    processes = [
        spawn(
            [sys.executable, '-m', 'helpers.run_in_processes', folder, address]
            + [str(value) for value in (num_processes, process_id, num_steps, dtype)],
            cwd=ROOT / 'tests',
            env=environment(num_devices, folder),
        )
        for process_id in range(num_processes)
    ]
    assert [process.wait(PATIENCE) for process in processes] == [0] * num_processes
    results = []
    for process_id in range(num_processes):
        with np.load(folder / f'{process_id}.npz') as arrays:
            results.append(dict(arrays))
        assert results[-1].pop('late_compilations') == 0
    return results


def start(config, workdir, num_processes, *arguments, num_devices=1):
    """The command line in several processes; what each says is in `WORKDIR.<i>.log`."""
    address = free_address()
    file = write_config(config, workdir)
    processes = []
    for process_id in range(num_processes):
        with open(f'{workdir}.{process_id}.log', 'w') as log:
            processes.append(
                spawn(
                    [sys.executable, '-m', 'vaebm_jax.main', f'--config={file}']
                    + [f'--workdir={workdir}', '--distributed=explicit']
                    + [f'--coordinator_address={address}', f'--num_processes={num_processes}']
                    + [f'--process_id={process_id}', *arguments],
                    cwd=ROOT,
                    env=environment(num_devices, workdir.parent),
                    stderr=log,
                )
            )
    return processes


def said(workdir, process_id):
    """Its lines, but for those of the runtime."""
    lines = pathlib.Path(f'{workdir}.{process_id}.log').read_text().splitlines()
    return [line for line in lines if not line.startswith(('[Gloo]', 'W', 'E', 'I'))]


def statuses(processes):
    return [process.wait(PATIENCE) for process in processes]


def assert_same_run(ours, theirs):
    assert rows(ours) == rows(theirs)
    ours, theirs = (jax.tree.leaves(load(workdir)[0]) for workdir in (ours, theirs))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            ('explicit',),
            'needs --coordinator_address=HOST:PORT, --num_processes, --process_id, too',
        ),
        (('explicit', 'localhost:99', 2), 'explicit needs --process_id, too'),
        (('explicit', 'localhost', 2, 0), "HOST:PORT of process 0, .* got 'localhost'"),
        (('explicit', 'localhost:65536', 2, 0), "got 'localhost:65536'"),
        (('explicit', 'localhost:99', 2, 2), 'from 0 to --num_processes - 1 = 1, got 2'),
        (('auto', 'localhost:99'), '--coordinator_address must come with --distributed=explicit'),
        (('off', None, 2, 0), '--num_processes, --process_id must come with .*--distributed=off'),
    ],
)
def test_missing_and_contradictory_flags_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        distributed.initialize(*arguments)
    assert not jax.distributed.is_initialized()


def test_on_a_lone_machine_nothing_is_started(tmp_path):
    code = (
        'import time, jax\n'
        'from vaebm_jax.runtime import distributed\n'
        'began = time.process_time()\n'
        'distributed.initialize()\n'
        'assert not jax.distributed.is_initialized() and time.process_time() - began < 0.5\n'
        'assert distributed.is_first() and list(distributed.share(5)) == []\n'
        'assert distributed.agreed(lambda: (1, 2)) == (1, 2)\n'
    )
    subprocess.run([sys.executable, '-c', code], env=environment(1, tmp_path), check=True)


def test_a_cluster_that_cannot_be_joined_costs_one_line(monkeypatch):
    """As in a pod of Kubernetes whose service account may not look at the pod's own job."""

    def initialize(**arguments):
        raise RuntimeError('Kubernetes API Error: 403 - Forbidden\nIt appears that')

    monkeypatch.setattr(jax.distributed, 'initialize', initialize)
    with pytest.raises(UserError, match='Error: 403 - Forbidden It appears.*distributed=off'):
        distributed.initialize()


def runtime(text):
    return jax.errors.JaxRuntimeError(text)


WATCH = (
    'INTERNAL: Barrier failed because: task is set to ERROR: UNAVAILABLE: Task 1 heartbeat timeout.'
    " [type.googleapis.com/tensorflow.CoordinationServiceError='']. Barrier Id: x 1::0, Task: 1"
)
GLOO = 'UNKNOWN: Gloo all-reduce failed: [external/gloo/pair.cc:547] Connection closed by peer'
NCCL = (
    'INTERNAL: external/xla/nccl_utils.cc:216: NCCL operation async_err failed: {}. Last NCCL '
    "warning(error) log entry (may be unrelated) '{}'."
)


@pytest.mark.parametrize(
    'error, is_loss',
    [
        (runtime(WATCH), True),
        (runtime('UNAVAILABLE: Failed to send RPC to coordination service.'), True),
        (runtime('DEADLINE_EXCEEDED: Barrier timed out. Id: decided 1::0.'), True),
        (runtime(GLOO), True),
        (runtime(GLOO.replace('Connection closed', 'Read error: Connection reset')), True),
        (ValueError(GLOO), True),  # As pmap raises it.
        (runtime(NCCL.format('remote process exited or there was a network error', '')), True),
        (runtime(NCCL.format('unhandled system error', 'Connection closed by remote peer')), True),
        # Defects, whatever their words.
        (ValueError('batch_size does not fit the barrier of the gloo heartbeat'), False),
        (ValueError('UNAVAILABLE: the storage said so'), False),
        (ValueError('some text, then ' + GLOO), False),
        (UserError(GLOO), False),
        (RuntimeError(WATCH), False),
        (KeyError('nccl'), False),
        (runtime('RESOURCE_EXHAUSTED: Out of memory near the barrier'), False),
        (runtime('INTERNAL: a barrier of the kernel, nccl or not'), False),
        (runtime('INVALID_ARGUMENT: heartbeat'), False),
        (runtime(NCCL.format('invalid usage', '')), False),
        (runtime('UNKNOWN: Gloo all-reduce failed: unsupported type'), False),
    ],
)
def test_a_loss_is_told_by_the_errors_type_and_code(monkeypatch, error, is_loss):
    assert not distributed.is_loss(error)  # Of one process, nothing is.
    monkeypatch.setattr(jax.distributed, 'is_initialized', lambda: True)
    assert distributed.is_loss(error) == is_loss


def test_shares_of_a_stream_are_disjoint_and_cover_the_epoch(tiny_config, tmp_path, monkeypatch):
    from PIL import Image

    for value in range(16):
        Image.new('L', (8, 8), 16 * value).save(tmp_path / f'{value:02d}.png')
    data = dataclasses.replace(tiny_config.data, name='folder', dir=str(tmp_path))
    folder, key = Folder(data, 'train'), jax.random.key(0)
    owners = [0, 1, 1, 2]  # Of the devices.
    devices = [dataclasses.make_dataclass('Device', ['process_index'])(owner) for owner in owners]
    shares = []
    for process in range(3):
        monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
        shares.append(np.stack(list(stream(folder, key, 8, local_rows(8, devices), 0, 2))))
    assert [share.shape[1] for share in shares] == [2, 4, 2]
    seen = np.concatenate(shares, axis=1)[:, :, 0, 0, 0] // 16
    np.testing.assert_array_equal(seen, [batch_indices(key, step, 16, 8) for step in range(2)])
    assert sorted(seen.ravel()) == list(range(16))


@pytest.mark.multi_device
def test_two_processes_compute_the_run_of_one(tmp_path):
    (alone,) = run_on_devices(tmp_path, 20, 'float64', 'dense', '1x1').values()
    results = run_in_processes(tmp_path / 'two', 2, 1, 20, 'float64')
    assert_close({'one': alone, 'first': results[0], 'second': results[1]}, '', 1e-10)


@pytest.mark.slow
@pytest.mark.multi_device
@pytest.mark.parametrize('shape', [(4, 1), (2, 2)])
def test_so_do_four_and_two_of_two_devices(tmp_path, shape):
    (alone,) = run_on_devices(tmp_path, 20, 'float64', 'dense', '1x1').values()
    results = run_in_processes(tmp_path / 'all', *shape, 20, 'float64')
    assert_close({'one': alone} | dict(enumerate(results)), '', 1e-10)
    for result in results[1:]:  # To the bit, or they would drift apart.
        for name, value in result.items():
            np.testing.assert_array_equal(value, results[0][name])


@pytest.mark.slow
@pytest.mark.multi_device
@pytest.mark.parametrize('shape', [(2, 1), (4, 1), (2, 2)])
def test_raw_gradients_do_not_depend_on_the_processes(tmp_path, shape):
    (alone,) = run_on_devices(tmp_path, 1, 'float32', 'dense', '1x1').values()
    results = run_in_processes(tmp_path / 'all', *shape, 1, 'float32')
    assert_close({'one': alone} | dict(enumerate(results)), '.mu', 1e-5)


@pytest.mark.multi_device
def test_a_signal_to_one_saves_in_all_and_another_number_goes_on(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, num_steps=4000, log_every=200, checkpoint_every=0)
    processes = start(config, tmp_path / 'run', 2)
    wait_for(tmp_path / 'run' / 'metrics.jsonl', processes[0])
    processes[1].send_signal(signal.SIGTERM)
    assert statuses(processes) == [75, 75]
    states, _ = load(tmp_path / 'run')
    step = int(states.step)
    line = f'interrupted: SIGTERM; step {step} of 4000 is saved, the same command resumes'
    assert 200 < step < 4000
    first, second = said(tmp_path / 'run', 0), said(tmp_path / 'run', 1)
    assert first[0].endswith('2 x cpu (cpu) in 2 processes') and first[-1].startswith(line)
    assert len(second) == 1 and second[0].startswith(line)  # It has not said anything else.

    config.num_steps = step + 3
    assert int(train(config, tmp_path / 'run').step) == step + 3
    logged = [row['step'] for row in rows(tmp_path / 'run')]
    assert logged == [*range(200, step + 1, 200), step + 3]


@pytest.mark.multi_device
def test_where_one_is_killed_the_others_end_and_the_restart_goes_on(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, num_steps=100_000, log_every=50, checkpoint_every=50)
    processes = start(config, tmp_path / 'run', 2)
    wait_for(tmp_path / 'run' / 'checkpoints' / '100', processes[0])
    processes[1].kill()
    began = time.monotonic()
    status = processes[0].wait(PATIENCE)
    assert time.monotonic() - began < 90
    if status == -signal.SIGABRT:  # At a barrier, JAX may be the first to see it.
        assert 'another task died' in pathlib.Path(f'{tmp_path}/run.0.log').read_text()
    else:
        lines = said(tmp_path / 'run', 0)
        assert status == 75 and lines[-2].startswith(
            'interrupted: another process of the run has ended'
        )
        assert lines[-1].startswith(('JaxRuntimeError: ', 'ValueError: UNKNOWN: Gloo '))
        assert not any('Traceback' in line for line in lines)
    with (tmp_path / 'run' / 'config.json').open() as file:
        assert json.load(file)['num_steps'] == 100_000

    saved = max(int(path.name) for path in (tmp_path / 'run' / 'checkpoints').glob('[0-9]*[0-9]'))
    config.num_steps = saved + 2
    assert int(train(config, tmp_path / 'run').step) == saved + 2


@pytest.mark.slow
@pytest.mark.multi_device
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_run_of_two_ends_as_one_that_was_not(tiny_config, tmp_path, number):
    config = dataclasses.replace(tiny_config, num_steps=2000, log_every=200, checkpoint_every=0)
    config.steps_per_call = 7
    processes = start(config, tmp_path / 'run', 2)
    wait_for(tmp_path / 'run' / 'metrics.jsonl', processes[0])
    processes[0].send_signal(number)
    assert statuses(processes) == [75, 75]
    assert statuses(start(config, tmp_path / 'run', 2)) == [0, 0]
    assert statuses(start(config, tmp_path / 'whole', 2)) == [0, 0]
    assert_same_run(tmp_path / 'run', tmp_path / 'whole')


@pytest.mark.slow
@pytest.mark.multi_device
def test_checkpoints_go_from_any_number_to_any_other(tiny_config, tmp_path):
    """2 processes of 2 devices, then 1 of 4, then 4 of 1, then 1 of 1: it stays the run of one."""
    run = tmp_path / 'run'
    for steps, num_processes, num_devices in ((2, 2, 2), (4, 1, 4), (6, 4, 1), (8, 1, 1)):
        config = dataclasses.replace(tiny_config, num_steps=steps, schedule=constant())
        processes = start(config, run, num_processes, num_devices=num_devices)
        assert statuses(processes) == [0] * num_processes, said(run, 0)
    train(dataclasses.replace(config), tmp_path / 'alone')
    for ours, theirs in zip(rows(run), rows(tmp_path / 'alone'), strict=True):
        assert ours['step'] == theirs['step']
        # Adam in float32 makes steps of rounding (PERFORMANCE of the order of sums): 0.5 %.
        np.testing.assert_allclose(ours['energy_data'], theirs['energy_data'], rtol=5e-3)
        np.testing.assert_allclose(ours['distortion'], theirs['distortion'], rtol=5e-2)


def constant():
    from vaebm_jax.config import ScheduleConfig

    return ScheduleConfig('constant')


@pytest.mark.slow
@pytest.mark.multi_device
def test_a_process_that_hangs_ends_the_others_by_its_heartbeat(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, num_steps=10**6, log_every=1000, checkpoint_every=0)
    processes = start(config, tmp_path / 'run', 2)
    wait_for(tmp_path / 'run' / 'metrics.jsonl', processes[0])
    processes[1].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    status = processes[0].wait(PATIENCE)
    seconds = time.monotonic() - began
    processes[1].kill()
    assert status not in (0, 1) and seconds < 120
    text = pathlib.Path(f'{tmp_path}/run.0.log').read_text()
    assert 'another task died' in text or 'another process of the run has ended' in text
    print(f'ended {seconds:.0f} s after, with status {status}')


@pytest.mark.multi_device
@pytest.mark.parametrize('error', ['ValueError', 'RuntimeError'])
def test_a_defect_is_none_whatever_its_words(tiny_config, tmp_path, error):
    """It ends with its traceback and status 1, not as what is worth another try."""
    text = 'the barrier of the gloo heartbeat is unavailable'
    code = (
        'import sys\n'
        'from vaebm_jax import main\n'
        'from vaebm_jax.cli import modes\n'
        f'def fail(*_, **__): raise {error}({text!r})\n'
        'modes.train = fail\n'
        'main.run()\n'
    )
    file = write_config(tiny_config, tmp_path / 'run')
    process = spawn(
        [sys.executable, '-c', code, f'--config={file}', f'--workdir={tmp_path}/run']
        + ['--distributed=explicit', f'--coordinator_address={free_address()}']
        + ['--num_processes=1', '--process_id=0'],
        cwd=ROOT,
        env=environment(1, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1
    assert 'Traceback' in said and said.splitlines()[-1] == f'{error}: {text}'


@pytest.mark.slow
@pytest.mark.multi_device
def test_what_process_0_finds_ends_all_in_one_line(tiny_config, tmp_path):
    run = tmp_path / 'run'
    train(tiny_config, run)
    damaged = run / 'checkpoints' / '6' / 'default' / '_METADATA'
    damaged.write_bytes(b'')
    processes = start(tiny_config, run, 2, '--resume=strict')
    assert statuses(processes) == [1, 1]
    for process in range(2):
        assert said(run, process)[-1].startswith(
            'error: --resume=strict resumes only from the newest'
        )
    assert len(said(run, 1)) == 1
    assert statuses(start(tiny_config, run, 2)) == [0, 0]
    assert 'resume: from step 4' in '\n'.join(said(run, 0))

    other = start(dataclasses.replace(tiny_config, num_steps=10**6), tmp_path / 'busy', 1)
    wait_for(tmp_path / 'busy' / 'metrics.jsonl', other[0])
    processes = start(tiny_config, tmp_path / 'busy', 2)
    assert statuses(processes) == [1, 1]


@pytest.mark.slow
@pytest.mark.multi_device
def test_a_workdir_that_is_not_shared_is_refused(tiny_config, tmp_path):
    address = free_address()
    file = write_config(tiny_config, tmp_path / 'run')
    processes = [
        spawn(
            [sys.executable, '-m', 'vaebm_jax.main', f'--config={file}', '--distributed=explicit']
            + [f'--workdir={tmp_path}/run{index}', f'--coordinator_address={address}']
            + ['--num_processes=2', f'--process_id={index}'],
            cwd=ROOT,
            env=environment(1, tmp_path),
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    assert statuses(processes) == [1, 1]
    for error in errors:
        assert 'error: workdir must be on a disk that all processes share' in error


@pytest.mark.slow
@pytest.mark.multi_device
def test_two_processes_evaluate_and_sample_as_one(tiny_config, tmp_path):
    """700 samples, in two parts."""
    run = tmp_path / 'run'
    train(tiny_config, run)
    results = []
    for num_processes, num_devices in ((1, 1), (2, 1), (2, 2), (1, 4)):
        arguments = ('--mode=evaluate', '--num_samples=700')
        processes = start(tiny_config, run, num_processes, *arguments, num_devices=num_devices)
        assert statuses(processes) == [0] * num_processes, said(run, 0)
        results.append(json.loads((run / 'evaluation.json').read_text()))
        assert not (run / 'samples' / 'parts').exists()
    for other in results[1:]:
        assert_close_tree(other, results[0])
    for num_processes in (1, 2):
        processes = start(tiny_config, run, num_processes, '--mode=sample', '--num_samples=700')
        assert statuses(processes) == [0] * num_processes, said(run, 0)
        with np.load(run / 'samples' / 'refined.npz') as arrays:
            results.append(arrays['images'])
    np.testing.assert_allclose(results[-1], results[-2], atol=1e-5)


def assert_close_tree(ours, theirs):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_close_tree(ours[name], theirs[name])
    elif isinstance(ours, float):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    elif isinstance(ours, list) and ours and isinstance(ours[0], (int, float)):
        np.testing.assert_allclose(ours, theirs, atol=1.5, rtol=1e-4)  # A count at a bin's edge.
    elif isinstance(ours, list):
        for one, other in zip(ours, theirs, strict=True):
            assert_close_tree(one, other)
    else:
        assert ours == theirs
