#!/usr/bin/env bash
# N processes of one run on this machine, on CPUs or with a GPU each:
#
#   bash launch/local_multiprocess.sh 4 --config=configs/digits.py --workdir=runs/digits
#
# Process 0 logs to the terminal, process i to WORKDIR.process_i.log. GPUs are used if there are N of them
# and JAX_PLATFORMS is not cpu. Ctrl-C and SIGTERM save at the same step in all processes, a second one ends
# them at once. The exit status is that of the process that failed first, if any did; the others end by
# themselves within a time limit. Needs bash 4 and python3, or PYTHON.
#
# Run: the line above with 20 steps, on two CPU cores: the metrics are those of one process to 2e-7 at step 5
# and to 5e-5 at step 20, in float32. Only tried with stand-ins (tests/test_launch.py): a GPU for each, and
# what becomes of a process that fails.
set -euo pipefail

fail() { echo "$*" >&2; exit 1; }

n=${1:-}
[[ $n =~ ^[1-9][0-9]*$ ]] || fail 'usage: bash launch/local_multiprocess.sh N --config=FILE --workdir=FOLDER ...'
shift
workdir=
for argument in "$@"; do
  case $argument in --workdir=*) workdir=${argument#--workdir=} ;; esac
done
[ -n "$workdir" ] || fail '--workdir=FOLDER must be among the flags, as one word'
mkdir -p "$(dirname "$workdir")"

python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || true
if [ "$gpus" -lt "$n" ]; then export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}; fi

pids=()
for ((i = 0; i < n; i++)); do
  command=("$python" -m vaebm_jax.main --distributed=explicit --coordinator_address="127.0.0.1:$port"
    --num_processes="$n" --process_id="$i" "$@")
  if [ "${JAX_PLATFORMS:-}" != cpu ]; then export CUDA_VISIBLE_DEVICES=$i; fi
  if [ "$i" = 0 ]; then "${command[@]}" & else "${command[@]}" >"$workdir.process_$i.log" 2>&1 & fi
  pids[i]=$!
done

signals=0
# shellcheck disable=SC2329  # The trap calls it.
stop() {
  signals=$((signals + 1))
  if [ "$signals" = 1 ]; then kill -TERM "${pids[@]}"; else kill -KILL "${pids[@]}"; fi 2>/dev/null || true
}
trap stop INT TERM

status=0 deadline=
while [ ${#pids[@]} -gt 0 ]; do
  sleep 0.2 || true
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    code=0
    wait "${pids[i]}" || code=$?
    unset "pids[i]"
    if [ "$code" != 0 ] && [ "$status" = 0 ]; then
      status=$code deadline=$((SECONDS + 90))
      if [ "$i" != 0 ]; then echo "process $i ended with status $code: $workdir.process_$i.log" >&2; fi
    fi
  done
  if [ -n "$deadline" ] && [ "$SECONDS" -gt "$deadline" ] && [ ${#pids[@]} -gt 0 ]; then
    kill -KILL "${pids[@]}" 2>/dev/null || true
  fi
done
exit "$status"
