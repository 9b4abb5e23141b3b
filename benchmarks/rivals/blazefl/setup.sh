#!/usr/bin/env bash
# BlazeFL 2.0.3 declares Python 3.12 or newer, but nothing in it needs more than 3.11: its Python can be the
# other rivals'. So --ignore-requires-python, for it alone.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../setup.sh" blazefl --no-deps --ignore-requires-python
