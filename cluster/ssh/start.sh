#!/usr/bin/env bash
# One study on machines that you reach by ssh:  cluster/ssh/start.sh STUDY.yaml HEAD [WORKER...]
# Starts Ray on all of them, runs the study on HEAD, and ends Ray when the study ends, on ctrl-C, and when the connection is lost.
# The machines see one folder at one path (NFS) with the repository, its .venv, the study and its results; ssh asks for no password.
#
# --- what you edit ----------------------------------------------------------------------------------------------------
folder=${TUNE_LORA_FOLDER:-$PWD}               # the repository, at the same path everywhere
environment=${TUNE_LORA_VENV:-$folder/.venv}   # with tune-lora
port=${RAY_PORT:-6379}                         # of the head; workers reach it, others need not
address=${RAY_HEAD_ADDRESS:-}                  # of the head as workers see it; empty: what its name stands for
size=${RAY_SIZE:-}                             # such as "--num-cpus=16 --num-gpus=2"; empty: all that a machine has
# ----------------------------------------------------------------------------------------------------------------------
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 STUDY.yaml HEAD [WORKER...]" >&2
    exit 2
fi
study=$1 head=$2
shift 2
if [ -z "$address" ]; then
    read -r address _ < <(getent hosts "${head#*@}") || { echo "error: ${head#*@} has no address; set RAY_HEAD_ADDRESS" >&2; exit 2; }
fi

# A token for this run alone. It goes to each machine as the first line of standard input: no file and no command line holds it.
token=$("$environment/bin/python" -c 'import secrets; print(secrets.token_hex(32))')
# A machine that is cut off is given up after half a minute, not after one.
notice="RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=4"
there="IFS= read -r RAY_AUTH_TOKEN && export RAY_AUTH_TOKEN RAY_AUTH_MODE=token $notice PATH=$(printf %q "$environment/bin"):\$PATH"
there="$there && cd $(printf %q "$folder")"

lines=() sessions=()
keep() { # HOST COMMAND: runs it there until this script is gone, whatever ends it
    local line before
    # Standard input ends with this script or with the connection; then what was started is ended.
    exec {line}> >(
        for before in "${lines[@]}"; do exec {before}>&-; done
        exec ssh -o BatchMode=yes "$1" "$there && { $2 </dev/null & } && cat >/dev/null; kill \$!; wait"
    )
    sessions+=($!) lines+=("$line")
    echo "$token" >&"$line"
}
end() {
    local line
    for line in "${lines[@]}"; do exec {line}>&-; done
    for _ in $(seq 60); do
        kill -0 "${sessions[@]}" 2>/dev/null || return 0
        sleep 0.5
    done
}
trap end EXIT

on_head() { echo "$token" | ssh -o BatchMode=yes "$head" "$there && export RAY_ADDRESS=$address:$port && $1"; }
nodes() { on_head "python -c 'import ray; ray.init(logging_level=\"ERROR\", log_to_driver=False); print(sum(node[\"Alive\"] for node in ray.nodes()))'"; }
wait_for() { # COUNT
    for _ in $(seq 60); do
        if [ "$(nodes 2>/dev/null || echo 0)" -ge "$1" ]; then
            return
        fi
        sleep 2
    done
    echo "error: $1 machines were expected in Ray at $address:$port" >&2
    return 1
}

started="--disable-usage-stats --block $size"
keep "$head" "ray start --head --node-ip-address=$address --port=$port --dashboard-host=127.0.0.1 $started"
wait_for 1
for worker in "$@"; do
    keep "$worker" "ray start --address=$address:$port $started"
done
wait_for $(($# + 1))
on_head "tune-lora run $(printf %q "$study")"
