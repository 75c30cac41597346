#!/usr/bin/env bash
# Runs a command on this machine until it is done.
#
#   launch/retry.sh [--attempts=N] [--pause=S] -- python -m bignas_jax.main ...
#
# After status 75 (it was asked to stop, and has saved) the command is started
# again at once; after any other failure, a lost machine among them, after S
# seconds (default 60), doubled each time in a row; after 2, a user's error,
# never. The command is started N times at most (default 20). Our status is that
# of its last run. SIGTERM and SIGINT are passed on as SIGTERM, and end this.
set -euo pipefail

fail() { echo "error: $1" >&2; exit 2; }
attempts=20 pause=60
while (($#)); do
  case $1 in
    --attempts=*) attempts=${1#*=} ;;
    --pause=*) pause=${1#*=} ;;
    --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit ;;
    --) shift; break ;;
    *) fail "argument: got '$1'; allowed: see launch/retry.sh --help" ;;
  esac
  shift
done
[[ $attempts =~ ^[1-9][0-9]*$ ]] ||
  fail "--attempts: got '$attempts'; allowed: a number of at least 1"
[[ $pause =~ ^[0-9]+$ ]] || fail "--pause: got '$pause'; allowed: seconds"
(($#)) || fail "command: got nothing; allowed: launch/retry.sh -- COMMAND"

# shellcheck source=launch/await.sh
source "$(dirname "$0")/await.sh"
stopping=''
# shellcheck disable=SC2329  # by the trap
pass_on() {
  signalled=1 stopping=1
  [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
}
trap pass_on INT TERM

wait_s=$pause
for ((attempt = 1; ; attempt++)); do
  "$@" &
  await $!
  ((status != 0 && status != 2)) && [[ -z $stopping ]] || exit "$status"
  echo "attempt $attempt of $attempts ended with status $status" >&2
  ((attempt < attempts)) || exit "$status"
  if ((status == 75)); then
    wait_s=$pause
    continue
  fi
  ended=$status
  sleep "$wait_s" &
  await $!
  wait_s=$((wait_s * 2))
  [[ -z $stopping ]] || exit "$ended"
done
