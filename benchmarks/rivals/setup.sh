#!/usr/bin/env bash
# Make RIVAL/.venv and install what it needs: setup.sh RIVAL [PIP_OPTION...]
# torch comes first and by itself, so that a build of this version that is already in the environment is kept.
# Where pip must be told to overlook something in the rival's own metadata (PIP_OPTION), the packages for
# which it must not are in needs.txt.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/$1" && pwd)"
shift
[ -x "$here/.venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$here/.venv"
pip=("$here/.venv/bin/python" -m pip install --disable-pip-version-check -q)
"${pip[@]}" torch==2.13.0
[ ! -f "$here/needs.txt" ] || "${pip[@]}" -r "$here/needs.txt"
"${pip[@]}" "$@" -r "$here/requirements.txt"
