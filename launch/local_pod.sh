#!/usr/bin/env bash
# Runs a command as N processes of one run, on this machine's CPUs: a pod in
# small, for trying out what several hosts do.
#
#   launch/local_pod.sh N [DEVICES] -- python -m bignas_jax.main --config=...
#
# Each process has DEVICES CPU devices (default 1). Process 0 writes to the
# terminal, process i to local_pod.i.log in a new directory that is named at
# the end. The first process that fails stops the others; its status is ours.
set -euo pipefail

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || usage
processes=$1; shift
devices=1
if [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then devices=$1; shift; fi
[[ ${1:-} == -- && $# -gt 1 ]] || usage
shift

logs=$(mktemp -d -t local_pod.XXXXXX)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
export JAX_PLATFORMS=cpu
export JAX_COORDINATOR_ADDRESS=localhost:$port
export JAX_NUM_PROCESSES=$processes
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"

pids=()
stop() { kill -TERM "${pids[@]}" 2>/dev/null || true; }
trap stop INT TERM
for ((i = processes - 1; i > 0; i--)); do
  JAX_PROCESS_ID=$i "$@" >"$logs/local_pod.$i.log" 2>&1 &
  pids+=($!)
done
JAX_PROCESS_ID=0 "$@" &
pids+=($!)

status=0
for ((left = processes; left > 0; left--)); do
  wait -n || { status=$?; stop; break; }
done
wait || true
((processes == 1)) || echo "logs of the other processes: $logs" >&2
exit "$status"
