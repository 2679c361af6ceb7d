#!/usr/bin/env bash
# The fast tests, in two runs: side by side what needs nothing but its own process, then one by one what starts Ray, servers
# or drivers and waits for them. Arguments go to both; TEST_WORKERS says how many run side by side (1: none).
set -uo pipefail
cd "$(dirname "$0")/.." || exit

cores="$(nproc)"
workers="${TEST_WORKERS:-$((cores < 8 ? cores : 8))}"
found=no status=0

run() {
    .venv/bin/python -m pytest "$@"
    case $? in
    0) found=yes ;;
    5) ;; # no test of this run was asked for
    *) found=yes status=1 ;;
    esac
}

run -m "not slow and not alone" --numprocesses "$workers" --dist loadfile "$@"
run -m "not slow and alone" "$@"
if [ "$found" = no ]; then
    echo "no test is as asked for: $*" >&2
    exit 5
fi
exit "$status"
