#!/usr/bin/env bash
# Writes requirements.lock from pyproject.toml: one exact pin a line, no index, no URL. Pins that still satisfy pyproject.toml
# are kept; `scripts/lock.sh --upgrade` takes the newest of all but the pins below.
set -euo pipefail
cd "$(dirname "$0")/.."

# Versions the project is verified with. The registry's torch build runs on a CPU as well as on a GPU.
cat > .lock.in <<'PINS'
torch==2.14.1
torchvision==0.29.2
ray[default,tune]==2.60.0
optuna==5.0.0
PINS
trap 'rm -f .lock.in' EXIT

.venv/bin/python -m piptools compile pyproject.toml .lock.in --extra dev --output-file requirements.lock --quiet \
    --resolver backtracking --strip-extras --allow-unsafe --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options "$@"

# The lock is made with the oldest supported Python; what only newer ones need stands in pyproject.toml (setuptools, under dev).
{
    echo "# The exact versions tune-lora is tested with, Python 3.11 to 3.13 on Linux. Made by \`make lock\`; do not edit."
    grep -E '^[A-Za-z0-9._-]+==' requirements.lock
} > .lock.out
mv .lock.out requirements.lock
