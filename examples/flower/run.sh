#!/usr/bin/env bash
# Runs this app under Flower's simulation engine with ten clients: bash examples/flower/run.sh [RUN CONFIG]
# RUN CONFIG overrides settings of pyproject.toml: 'rounds=5 client-selection="random"'.
set -euo pipefail
cd "$(dirname "$0")"
# Without these, Flower and Ray report the run to their makers, and Flower installs the app's dependencies anew.
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 RAY_USAGE_STATS_ENABLED=0
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
exec flwr run . --stream --federation-config 'num-supernodes=10 client-resources-num-cpus=1' \
    --run-config "${1:-rounds=20}"
