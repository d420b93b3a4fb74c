#!/usr/bin/env bash
# Makes .venv, installs vaebm_jax and trains on the digits that come with scikit-learn: a few minutes on
# two cores, no data to download. Further arguments go to vaebm_jax.main (--config.num_steps=2000, ...).
# Run again, it resumes from the last checkpoint, or says that the run is finished.
set -euo pipefail
# shellcheck source=launch/venv.sh
source "$(dirname "$0")/venv.sh"

workdir=runs/digits
for argument in "$@"; do
  case $argument in --workdir=*) workdir=${argument#--workdir=} ;; esac
done

install .
"$VENV/bin/python" -m vaebm_jax.main --config=configs/digits.py --workdir="$workdir" "$@"

pictures=("$workdir"/samples/step_*.png)  # in the order of their steps
newest=${pictures[${#pictures[@]} - 1]}
[ -e "$newest" ] || fail "No picture in $workdir/samples."
echo
echo "Open $newest"
echo "Left: the decoder's ancestral samples. Right: the same after the Langevin steps on the energy."
echo "The pictures beside it show earlier steps."
