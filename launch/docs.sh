#!/usr/bin/env bash
# Makes .venv, installs the docs and notebooks extras, executes the notebooks and builds the documentation in
# docs/_build/html; a warning is an error. Further arguments go to sphinx-build (-E reads every page again).
set -euo pipefail
# shellcheck source=launch/venv.sh
source "$(dirname "$0")/venv.sh"

install '.[docs,notebooks]'
"$VENV/bin/python" -m sphinx -W --keep-going -q -d docs/_build/doctrees "$@" docs docs/_build/html
echo "Open docs/_build/html/index.html"
