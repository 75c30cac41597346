#!/usr/bin/env bash
# Runs a command as N processes of one run, on this machine's CPUs: a pod in
# small, for trying out what several hosts do.
#
#   launch/local_pod.sh N [DEVICES] -- python -m bignas_jax.main --config=...
#
# Each process has DEVICES CPU devices (default 1). Process 0 writes to the
# terminal, process i to local_pod.i.log in a new directory that is named at
# the end. SIGTERM and SIGINT are passed on to all as SIGTERM. When a process
# fails, the others have seconds to end, too; the first failure's status is ours.
set -euo pipefail

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
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

declare -A number=()  # of the processes that run, by pid
send() { kill "-$1" "${!number[@]}" 2>/dev/null || true; }
trap 'send TERM' INT TERM
for ((i = processes - 1; i >= 0; i--)); do
  if ((i > 0)); then
    JAX_PROCESS_ID=$i "$@" >"$logs/local_pod.$i.log" 2>&1 &
  else
    JAX_PROCESS_ID=0 "$@" &
  fi
  number[$!]=$i
done

# The others may be about to fail alike, and to say why: no signal at first. A
# process of JAX's takes SIGTERM for a request to save, so it may not be enough.
end_the_others() {
  (sleep 5; send TERM; sleep 5; send KILL) >/dev/null 2>&1 &
  reaper=$!
}

status=0 reaper=
while ((${#number[@]})); do
  ended='' code=0
  wait -n -p ended "${!number[@]}" || code=$?
  [[ -n ${ended:-} ]] || continue  # a signal came, and was passed on
  index=${number[$ended]}
  unset "number[$ended]"
  ((code)) || continue
  echo "process $index ended with status $code" >&2
  if ((!status)); then status=$code; end_the_others; fi
done
[[ -z $reaper ]] || kill "$reaper" 2>/dev/null || true
((processes == 1)) || echo "logs of the other processes: $logs" >&2
exit "$status"
