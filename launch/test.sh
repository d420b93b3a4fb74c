#!/usr/bin/env bash
# Makes .venv, installs the test extra and runs the suite except tests marked slow, on up to four cores.
# Further arguments go to pytest (-k langevin, -x); of two -m the last counts: -m slow runs the slow ones alone.
set -euo pipefail
# shellcheck source=launch/venv.sh
source "$(dirname "$0")/venv.sh"

install '.[test]'
"$VENV/bin/python" -m pytest -m 'not slow' -n auto --maxprocesses 4 --dist worksteal "$@"
