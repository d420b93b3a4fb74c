"""The launch scripts with stand-ins for what this machine has not; the YAML against its schemas."""

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import yaml
from helpers.commands import ROOT, wait_for, write_config

from vaebm_jax import load

LAUNCH = ROOT / 'launch'
SLICE = {'NAME': 'pod', 'ZONE': 'a', 'TYPE': 'v5litepod-16', 'VERSION': 'v2', 'NFS': 'host:/share'}


def stand_in(folder, name, text):
    """A program of that name, in a folder that comes first on the path."""
    path = folder / name
    path.write_text(f'#!/usr/bin/env bash\n{text}\n')
    path.chmod(0o755)
    return str(path)


def launch(folder, script, *arguments, **environment):
    return subprocess.Popen(
        ['bash', LAUNCH / script, *arguments],
        cwd=ROOT,
        env=os.environ | {'PATH': f'{folder}:{os.environ["PATH"]}'} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process):
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_each_step_of_a_tpu_pod_prints_and_calls_the_same(tmp_path):
    for name in ('gcloud', 'git'):
        stand_in(
            tmp_path,
            name,
            f'printf "{name}" >> {tmp_path}/calls\nprintf " %q" "$@" >> '
            f'{tmp_path}/calls\necho >> {tmp_path}/calls',
        )
    flags = ('--config=configs/mnist.py', '--workdir=/mnt/share/it is')
    for step in (['create'], ['setup'], ['train', *flags], ['logs'], ['delete']):
        status, printed = finished(launch(tmp_path, 'tpu_pod.sh', '--dry-run', *step, **SLICE))
        assert status == 0, printed
        assert not (tmp_path / 'calls').exists()
        status, _ = finished(launch(tmp_path, 'tpu_pod.sh', *step, **SLICE))
        assert status == 0
        commands = [shlex.split(line.removeprefix('+')) for line in printed.splitlines()]
        assert [line for line in printed.splitlines() if not line.startswith('+ ')] == []
        calls = (tmp_path / 'calls').read_text().splitlines()
        assert printed.splitlines() == [f'+ {call}' for call in calls]
        (tmp_path / 'calls').unlink()
        if step[0] == 'train':
            remote = commands[0][-1].removeprefix('--command=')
            assert shlex.split(remote)[:7] == [
                'cd',
                'vaebm_jax',
                '&&',
                'nohup',
                '.venv/bin/python',
                '-m',
                'vaebm_jax.main',
            ]
            assert set(flags) < set(shlex.split(remote))
    status, output = finished(launch(tmp_path, 'tpu_pod.sh', 'create', NAME='pod', ZONE=''))
    assert status == 1 and output == "ZONE must be set: the slice's ZONE\n"


def test_each_local_process_has_a_gpu_where_there_are_enough(tmp_path):
    stand_in(tmp_path, 'nvidia-smi', 'echo GPU 0; echo GPU 1')
    python = stand_in(
        tmp_path,
        'python',
        'if [ "$1" = -c ]; then echo 4321; exit; fi\n'
        'echo "$CUDA_VISIBLE_DEVICES ${JAX_PLATFORMS:-}" "$@"',
    )
    arguments = ('--config=x.py', f'--workdir={tmp_path}/run')
    bare = {'PYTHON': python, 'JAX_PLATFORMS': '', 'CUDA_VISIBLE_DEVICES': ''}
    status, output = finished(launch(tmp_path, 'local_multiprocess.sh', '2', *arguments, **bare))
    flags = '-m vaebm_jax.main --distributed=explicit --coordinator_address=127.0.0.1:4321 '
    flags += '--num_processes=2 --process_id={} ' + ' '.join(arguments) + '\n'
    assert status == 0 and output == '0  ' + flags.format(0)
    assert (tmp_path / 'run.process_1.log').read_text() == '1  ' + flags.format(1)
    status, output = finished(launch(tmp_path, 'local_multiprocess.sh', '3', *arguments, **bare))
    assert status == 0 and output.startswith(' cpu -m')


def test_a_local_process_that_fails_gives_its_status_and_a_second_signal_ends_all(tmp_path):
    python = stand_in(
        tmp_path,
        'python',
        'if [ "$1" = -c ]; then echo 4321; exit; fi\n'
        'trap "" TERM\n'
        'case "$*" in\n'
        '  *--fail*--process_id=1*|*--process_id=1*--fail*) exit 3 ;;\n'
        '  *--wait*) touch "$0.$$"; while :; do sleep 0.1; done ;;\n'
        'esac',
    )
    workdir = f'--workdir={tmp_path}/run'
    process = launch(tmp_path, 'local_multiprocess.sh', '2', workdir, '--fail', PYTHON=python)
    status, output = finished(process)
    assert (
        status == 3 and output == f'process 1 ended with status 3: {tmp_path}/run.process_1.log\n'
    )
    process = launch(tmp_path, 'local_multiprocess.sh', '2', workdir, '--wait', PYTHON=python)
    while len(list(tmp_path.glob('python.*'))) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert finished(process)[0] == 128 + signal.SIGKILL


def test_cifar10_on_a_gpu_is_one_call(tmp_path):
    python = stand_in(tmp_path, 'python', 'printf "%s\\n" "$PYTHONPATH" "$@"')
    run = lambda *arguments, **environment: finished(
        launch(tmp_path, 'cifar10_gpu.sh', *arguments, PYTHON=python, **environment)
    )
    images = tmp_path / 'my images.npy'
    assert run('tfds', 'runs/x')[1].startswith('usage: ')
    assert run(images, 'runs/x', '5') == (1, f'no file {images}\n')
    images.touch()
    status, printed = run(images, 'runs/x', '5', '--config.seed=1', INCEPTION_WEIGHTS='w.npz')
    assert status == 0
    assert printed.splitlines() == [
        str(ROOT),
        f'{ROOT}/benchmarks/timed_run.py',
        f'--config={ROOT}/configs/cifar10.py:gpu',
        '--workdir=runs/x',
        '--minutes=5',
        '--config.data.name=array',
        f'--config.data.dir={images}',
        '--inception_weights=w.npz',
        '--config.seed=1',
    ]
    _, printed = run('tfds', 'runs/x', '5', CONFIG='other.py:paper', INCEPTION_WEIGHTS='')
    assert printed.splitlines()[2:] == [
        '--config=other.py:paper',
        '--workdir=runs/x',
        '--minutes=5',
    ]


@pytest.mark.parametrize(
    'status, restarts, requeued', [(0, 0, 0), (1, 0, 0), (75, 3, 1), (75, 100, 0)]
)
def test_slurm_puts_an_interrupted_job_back(tmp_path, status, restarts, requeued):
    stand_in(tmp_path, 'srun', f'echo "$@" >> "$0.calls"; exit {status}')
    stand_in(tmp_path, 'scontrol', 'echo "$@" >> "$0.calls"')
    job = {'SLURM_JOB_ID': '17', 'SLURM_RESTART_COUNT': str(restarts), 'PYTHON': 'python'}
    result, _ = finished(launch(tmp_path, 'slurm.sbatch', '--workdir=a b', **job))
    assert result == status
    tasks = (tmp_path / 'srun.calls').read_text()
    assert tasks.endswith('--wait=120 python -m vaebm_jax.main --workdir=a b\n')
    calls = tmp_path / 'scontrol.calls'
    assert (calls.read_text() if calls.exists() else '') == 'requeue 17\n' * requeued


@pytest.mark.slow
@pytest.mark.multi_device
def test_processes_of_a_slurm_job_find_each_other_and_are_preempted(tiny_config, tmp_path):
    """As in SLURM, whose variables jax.distributed reads, and whose signal comes to every task."""
    config = dataclasses.replace(tiny_config, num_steps=50_000, log_every=200, checkpoint_every=0)
    file = write_config(config, tmp_path / 'run')
    stand_in(
        tmp_path,
        'srun',
        'while [[ $1 == -* ]]; do shift; done\n'
        'export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2\n'
        'for i in 0 1; do\n'
        '  SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids[i]=$!\n'
        'done\n'
        f'echo "${{pids[@]}}" > {tmp_path}/pids\n'
        'most=0\n'
        'for pid in "${pids[@]}"; do\n'
        '  code=0; wait "$pid" || code=$?; if [ "$code" -gt "$most" ]; then most=$code; fi\n'
        'done\n'
        'exit "$most"',
    )
    stand_in(tmp_path, 'scontrol', 'echo "$@" > "$0.calls"')
    job = {'SLURM_JOB_ID': str(os.getpid()), 'PYTHON': sys.executable, 'JAX_PLATFORMS': 'cpu'}
    flags = (f'--config={file}', f'--workdir={tmp_path}/run')
    process = launch(tmp_path, 'slurm.sbatch', *flags, **job)
    wait_for(tmp_path / 'run' / 'metrics.jsonl', process)
    for pid in (tmp_path / 'pids').read_text().split():
        os.kill(int(pid), signal.SIGTERM)
    status, output = finished(process)
    assert status == 75 and '2 x cpu (cpu) in 2 processes' in output, output
    assert (tmp_path / 'scontrol.calls').read_text() == f'requeue {os.getpid()}\n'
    assert f'step {int(load(tmp_path / "run")[0].step)} of 50000 is saved' in output


# Of jobset.x-k8s.io/v1alpha2.
ACTIONS = {'FailJobSet', 'RestartJobSet', 'RestartJobSetAndIgnoreMaxRestarts'}


def documents():
    return list(yaml.safe_load_all((LAUNCH / 'k8s_jobset.yaml').read_text()))


def test_the_jobset_is_valid():
    kubernetes_validate = pytest.importorskip('kubernetes_validate')
    version = kubernetes_validate.latest_version()
    *others, jobset = documents()
    job = jobset['spec']['replicatedJobs'][0]['template']
    others.append({'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'a'}} | job)
    for resource in others:
        kubernetes_validate.validate(resource, version, strict=True)
    job['spec']['parallelism'] = 'four'
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(others[-1], version, strict=True)


def test_the_outer_layer_of_the_jobset_has_the_fields_of_its_definition():
    *_, jobset = documents()
    assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2' and jobset['kind'] == 'JobSet'
    spec = jobset['spec']
    assert spec.keys() == {'failurePolicy', 'replicatedJobs'}
    policy, (replicated,) = spec['failurePolicy'], spec['replicatedJobs']
    assert policy.keys() == {'maxRestarts', 'rules'} and isinstance(policy['maxRestarts'], int)
    for rule in policy['rules']:
        assert rule.keys() == {'name', 'action', 'onJobFailureReasons'}
        assert re.fullmatch('[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?', rule['name'])
        assert rule['action'] in ACTIONS and rule['onJobFailureReasons'] == ['PodFailurePolicy']
    assert replicated.keys() == {'name', 'replicas', 'template'} and replicated['replicas'] == 1
    job = replicated['template']['spec']
    # What JAX's detection needs: an index for each pod, and as many pods at once as there are.
    assert job['completionMode'] == 'Indexed' and job['parallelism'] == job['completions'] == 4
    pod = job['template']['spec']
    assert pod['restartPolicy'] == 'Never'  # Which a pod failure policy asks for.
    accounts = {document['metadata']['name'] for document in documents()[:3]}
    assert {pod['serviceAccountName']} == accounts
