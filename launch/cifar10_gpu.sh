#!/usr/bin/env bash
# Trains CIFAR-10 on one GPU for a given number of minutes, and scores the result:
#
#   INCEPTION_WEIGHTS=inception.npz bash launch/cifar10_gpu.sh IMAGES.npy runs/cifar10_gpu 7
#
# IMAGES.npy is uint8 [N, 32, 32, 3]; the word tfds in its place reads the TFDS data set. The minutes include
# compilation and training; scoring takes two more. Further arguments go to benchmarks/timed_run.py
# (--config.seed=1, --quarter_samples=0). CONFIG=configs/cifar10.py:paper trains with the authors' settings.
#
# With these settings an H200 made 15,920 steps in 5.1 minutes: fd_768 0.27 refined, 0.34 ancestral
# (docs/experiments/cifar10_known_z.md).
set -euo pipefail

fail() { echo "$*" >&2; exit 1; }

[ $# -ge 3 ] || fail 'usage: bash launch/cifar10_gpu.sh IMAGES.npy|tfds WORKDIR MINUTES [FLAGS]'
images=$1 workdir=$2 minutes=$3
shift 3
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && [ -x "$root/.venv/bin/python" ]; then python=$root/.venv/bin/python; fi

flags=(--config="${CONFIG:-$root/configs/cifar10.py:gpu}" --workdir="$workdir" --minutes="$minutes")
if [ "$images" != tfds ]; then
  [ -f "$images" ] || fail "no file $images"
  flags+=(--config.data.name=array --config.data.dir="$(realpath "$images")")
fi
if [ -n "${INCEPTION_WEIGHTS:-}" ]; then flags+=(--inception_weights="$INCEPTION_WEIGHTS"); fi

# The program is compiled twice, for the timing and for the run; kernels are chosen once.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/vaebm_jax}
PYTHONPATH=$root exec "$python" "$root/benchmarks/timed_run.py" "${flags[@]}" "$@"
