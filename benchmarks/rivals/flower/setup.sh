#!/usr/bin/env bash
# Flower's own pin of certifi can be newer than any release; what it needs is in needs.txt, so --no-deps.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../setup.sh" flower --no-deps
