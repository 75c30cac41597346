# shellcheck shell=bash
# Waiting for a job past signals; read by the scripts here with `source`.

child='' signalled='' status=0

# Waits for a job of the background, which ^C does not reach, and sets `status`
# to its own. A signal ends bash's wait: a trap that lets it go on afterwards
# sets `signalled`, and finds the job in `child`, empty where none is waited for.
# shellcheck disable=SC2034  # the scripts' to read
await() {
  child=$1
  while :; do
    signalled='' status=0
    wait "$child" || status=$?
    [[ -n $signalled ]] || break
  done
  child=''
}
