#!/usr/bin/env bash
# Reports known vulnerabilities of the locked packages: what pip-audit says of requirements.lock, here and in build/audit.txt. A report,
# not a gate: it ends with 0 whatever it finds, and where pip-audit is absent or its database cannot be reached it says so.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 0

report=build/audit.txt
mkdir -p build

find_tool() {
    if command -v pip-audit; then
        return
    fi
    local folder=build/pip-audit
    if [ ! -x "$folder/bin/pip-audit" ]; then
        .venv/bin/python -m venv "$folder" >/dev/null 2>&1 || return 1
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit >/dev/null 2>&1 || return 1
    fi
    echo "$folder/bin/pip-audit"
}

if ! tool=$(find_tool); then
    echo "audit: not done: pip-audit is not installed, and could not be" | tee "$report"
    exit 0
fi
# Everything is pinned in the lock, so nothing is resolved or installed.
"$tool" --requirement requirements.lock --no-deps --disable-pip --progress-spinner off >"$report" 2>&1
ended=$?
cat "$report"
case $ended in
    0) echo "audit: nothing known against the $(grep -c == requirements.lock) packages of requirements.lock" | tee -a "$report" ;;
    1) if grep -q '^Found [0-9]' "$report"; then
           echo "audit: read the list above; \`make lock LOCK_ARGS=--upgrade\` takes newer versions" | tee -a "$report"
       else
           echo "audit: not done: pip-audit could not ask" | tee -a "$report"
       fi ;;
    *) echo "audit: not done: pip-audit ended with $ended" | tee -a "$report" ;;
esac
exit 0
