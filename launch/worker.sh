#!/usr/bin/env bash
# One worker's part of launch/tpu_vm.sh.
#
#   launch/worker.sh run ID -- COMMAND   starts it, follows it, ends as it does
#   launch/worker.sh stop ID             asks it to save and stop
#   launch/worker.sh status ID           prints with which status it ended
#   launch/worker.sh clear               has all of them save and end
#
# The command outlives a lost connection: `run` with the same ID follows what
# already runs. ~/.bignas_jax/ID/ has its output, `log`.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
(($# >= 2)) || [[ ${1:-} == clear ]] || usage
what=$1 runs=$HOME/.bignas_jax
state=$runs/${2:-none}
shift $(($# > 1 ? 2 : 1))

signal() {  # NUMBER DIRECTORY: to what runs there, if it does
  [[ -e $2/pid && ! -e $2/status ]] || return 1
  kill "-$1" "$(<"$2/pid")" 2>/dev/null
}

# What an earlier attempt or launcher left would hold the TPU.
end_the_others() {
  local other s
  for other in "$runs"/*/; do
    other=${other%/}
    [[ $other != "$state" ]] || continue
    signal TERM "$other" || continue
    for ((s = 0; s < 120; s++)); do
      signal 0 "$other" || continue 2
      sleep 1
    done
    signal KILL "$other" || true
  done
}

# shellcheck disable=SC2016  # expanded by the shell that it is for
readonly keeper='
  cd "$1"; state=$2; shift 2
  echo $$ >"$state/keeper"
  "$@" & echo $! >"$state/pid"
  status=0; wait $! || status=$?
  echo "$status" >"$state/status.new"; mv "$state/status.new" "$state/status"'

start() {
  end_the_others
  if [[ -e .venv/bin/activate ]]; then
    # shellcheck disable=SC1091  # made by install.sh
    source .venv/bin/activate
  fi
  export JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-auto}
  setsid bash -c "$keeper" keeper "$PWD" "$state" "$@" \
    >"$state/log" 2>&1 </dev/null &
}

case $what in
  run)
    [[ ${1:-} == -- && $# -gt 1 ]] || usage
    shift
    mkdir -p "$runs"
    lines=20
    if mkdir "$state" 2>/dev/null; then lines=+1; start "$@"; fi
    for ((i = 0; i < 1500; i++)); do
      [[ ! -s $state/pid ]] || break
      sleep 0.1
    done
    [[ -s $state/pid ]] || { echo 'it has not started' >&2; exit 1; }
    tail -n "$lines" -s 0.2 --pid="$(<"$state/keeper")" -f "$state/log"
    if [[ ! -e $state/status ]]; then
      echo "the machine was started anew under the command" >&2
      exit 1
    fi
    exit "$(<"$state/status")"
    ;;
  clear) end_the_others ;;
  stop) signal TERM "$state" || true ;;
  status) [[ ! -e $state/status ]] || cat "$state/status" ;;
  *) usage ;;
esac
