# shellcheck shell=bash
# Sourced by the scripts beside it: goes to the repository root and offers `install WHAT`, which makes
# the virtual environment VENV (default .venv) with PYTHON (default python3) and installs WHAT into it.

fail() { echo "$*" >&2; exit 1; }

VENV=${VENV:-.venv}
python=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)' 2>/dev/null) ||
  fail "Cannot run ${PYTHON:-python3}: set PYTHON to a Python 3.11 or newer."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "Python 3.11 or newer is needed, $python is older: set PYTHON to a newer one."
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$python has no venv module: install it (Debian, Ubuntu: apt install python3-venv) or set PYTHON."
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

# The same line for a Python and for the environments made with it, and for no others.
identity='import os, sys; print(sys.version, os.path.realpath(sys.base_prefix))'

install() {
  if [ "$("$VENV/bin/python" -c "import pip; $identity" 2>/dev/null)" != "$("$python" -c "$identity")" ]; then
    [ ! -e "$VENV" ] || [ -e "$VENV/pyvenv.cfg" ] || fail "$VENV is not a virtual environment: move it away or set VENV."
    echo "Making $VENV with $("$python" -V)"
    "$python" -m venv --clear "$VENV"
  fi
  echo "Installing $1 into $VENV (a minute or two the first time, seconds afterwards)"
  local pip=("$VENV/bin/python" -m pip install -qq --disable-pip-version-check)
  # Built with the environment's own setuptools, a second call is quick and needs no network.
  "${pip[@]}" 'setuptools >= 77'
  "${pip[@]}" --no-build-isolation --editable "$1"
}
