#!/usr/bin/env bash
# A run on a slice of Cloud TPUs, every step of it:
#
#   export NAME=vaebm ZONE=us-east5-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite NFS=10.0.0.2:/share
#   bash launch/tpu_pod.sh create
#   bash launch/tpu_pod.sh setup        # again after each change of the code that is committed
#   bash launch/tpu_pod.sh train --config=configs/cifar10.py --workdir=/mnt/share/runs/cifar10
#   bash launch/tpu_pod.sh logs
#   bash launch/tpu_pod.sh delete
#
# --dry-run before the step prints its commands in place of running them. The hosts of a slice find each
# other (jax.distributed); they need a disk that they share for the workdir: NFS, such as a Filestore, is
# mounted at /mnt/share by setup. SPOT=1 creates a preemptible slice, which has to be created again.
#
# Printed: all of it (tests/test_launch.py). Not run: any of it, for want of a TPU.
set -euo pipefail

fail() { echo "$*" >&2; exit 1; }

dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1 && shift; fi
step=${1:-}
shift || true
for variable in NAME ZONE; do
  [ -n "${!variable:-}" ] || fail "$variable must be set: the slice's $variable"
done

run() {
  printf '+'; printf ' %q' "$@"; echo
  [ -n "$dry_run" ] || "$@"
}
tpu=(gcloud compute tpus tpu-vm)
on() { run "${tpu[@]}" ssh "$NAME" --zone="$ZONE" --worker="$1" --command="$2"; }

case $step in
  create)
    [ -n "${TYPE:-}" ] && [ -n "${VERSION:-}" ] || fail 'TYPE and VERSION must be set, such as v5litepod-16 and v2-alpha-tpuv5-lite'
    create=("${tpu[@]}" create "$NAME" --zone="$ZONE" --accelerator-type="$TYPE" --version="$VERSION")
    if [ -n "${SPOT:-}" ]; then create+=(--spot); fi
    run "${create[@]}"
    ;;
  setup)
    [ -n "${NFS:-}" ] || fail 'NFS must be set: HOST:/PATH of a share that the slice can mount'
    archive=${TMPDIR:-/tmp}/vaebm_jax.tar.gz
    run git archive --format=tar.gz --output="$archive" HEAD
    run "${tpu[@]}" scp "$archive" "$NAME": --zone="$ZONE" --worker=all
    on all 'sudo apt-get install -y -q nfs-common python3.11-venv && sudo mkdir -p /mnt/share'
    on all "mountpoint -q /mnt/share || sudo mount -t nfs $(printf %q "$NFS") /mnt/share"
    on all 'sudo chmod 777 /mnt/share && mkdir -p vaebm_jax && tar -xzf vaebm_jax.tar.gz -C vaebm_jax'
    on all "cd vaebm_jax && python3.11 -m venv .venv && .venv/bin/python -m pip install -q '.[tpu]'"
    ;;
  train)
    on all "cd vaebm_jax && nohup .venv/bin/python -m vaebm_jax.main$(printf ' %q' "$@") >train.log 2>&1 </dev/null &"
    ;;
  logs) on 0 'tail -n 100 -F vaebm_jax/train.log' ;;
  delete) run "${tpu[@]}" delete "$NAME" --zone="$ZONE" --quiet ;;
  *) fail 'usage: bash launch/tpu_pod.sh [--dry-run] create | setup | train FLAGS | logs | delete' ;;
esac
