#!/usr/bin/env bash
# Runs a command on all workers of a Cloud TPU slice until it is done; makes the
# slice if need be, and another one when it is taken away.
#
#   launch/tpu_vm.sh --name=NAME --zone=ZONE --type=TYPE [OPTION...] -- COMMAND
#
#   --type=v5litepod-16  what to rent; also v3-128, v6e-16 and the like
#   --spot               cheaper, and may be taken away at any time
#   --delete             delete it at the end, whatever the end is (^C, too)
#   --attempts=N         start COMMAND so often at most (20)
#   --project=PROJECT    if not gcloud's own
#   --runtime=VERSION    the VMs' software, if not the one for this type
#   --create=FLAG        one more for `gcloud ... create`; may be repeated
#   --poll=S, --pause=S  between questions (30); after a crash (60)
#
# What git has committed here is what runs there, from its root; `python` is
# that of launch/install.sh. COMMAND must keep what it saves in a bucket.
#
# Status: 0 COMMAND is done; 2 a user's error, here or of COMMAND: not tried
# again; 75 stopped by ^C (SIGTERM), or taken away too often: started again with
# the same arguments, it goes on; else that of COMMAND's last crash, or 1.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

say() { echo "tpu_vm: $*" >&2; }
fail() { echo "error: $1: got '$2'; allowed: $3" >&2; exit 2; }

name='' zone='' type='' runtime='' attempts=20 poll=30 pause=60 delete=''
where=() more=()
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --spot) more+=(--spot) ;;
    --delete) delete=1 ;;
    --attempts=*) attempts=${1#*=} ;;
    --project=*) where+=("$1") ;;
    --runtime=*) runtime=${1#*=} ;;
    --create=*) more+=("${1#*=}") ;;
    --poll=*) poll=${1#*=} ;;
    --pause=*) pause=${1#*=} ;;
    --help) sed -n '2,24s/^# \{0,1\}//p' "$0"; exit ;;
    --) shift; break ;;
    *) fail argument "$1" 'see launch/tpu_vm.sh --help' ;;
  esac
  shift
done

[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  fail --name "$name" 'small letters, digits and -, a letter first'
[[ $zone =~ ^[a-z]+-[a-z0-9]+-[a-z]$ ]] ||
  fail --zone "$zone" 'a zone, such as us-central1-a'
[[ $attempts =~ ^[1-9][0-9]*$ ]] || fail --attempts "$attempts" '1 or more'
for number in "$poll" "$pause"; do
  [[ $number =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
    fail '--poll or --pause' "$number" 'seconds'
done
(($#)) || fail command '' 'a command after --'
case $type in
  v2-* | v3-* | v4-*) image=tpu-ubuntu2204-base ;;
  v5litepod-*) image=v2-alpha-tpuv5-lite ;;
  v5p-*) image=v2-alpha-tpuv5 ;;
  v6e-*) image=v2-alpha-tpuv6e ;;
  *) fail --type "$type" 'v2-, v3-, v4-, v5litepod-, v5p- or v6e-SIZE' ;;
esac
where+=(--zone="$zone" --quiet)
readonly maker=bignas-jax-tpu-vm  # the label of what this script made

tpus() { gcloud compute tpus "$@" "${where[@]}"; }
# A connection to a machine that is gone would else stay open, and silent.
on_all() {
  tpus tpu-vm ssh "$name" --worker=all --ssh-flag=-oServerAliveInterval=30 \
    --command="$1"
}

# --- waiting, and being asked to stop meanwhile ------------------------------

# shellcheck source=launch/await.sh
source "$here/launch/await.sh"
stopping='' running=''
# shellcheck disable=SC2329  # by the trap
on_signal() {
  signalled=1
  [[ -z $stopping ]] || exit 75  # asked twice: now
  stopping=1
  say 'asked to stop (once more: without waiting)'
  if [[ -n $running ]]; then
    on_all "bignas_jax/launch/worker.sh stop $running" >&2 &
  elif [[ -n $child ]]; then
    kill "$child" 2>/dev/null || true
  fi
}
trap on_signal INT TERM

go_on() { [[ -z $stopping ]] || exit 75; }
nap() { sleep "$1" & await $!; go_on; }

# --- the slice ---------------------------------------------------------------

ours=''  # whether there may be one that this script made
archive=$(mktemp -t tpu_vm.XXXXXX)
# shellcheck disable=SC2329  # by the trap
finish() {
  local ended=$?
  trap '' INT TERM
  rm -f "$archive"
  [[ -z $child ]] || kill "$child" 2>/dev/null || true
  if [[ -n $ours && -n $(state) ]]; then
    if [[ -z $delete ]]; then
      say "$name is still there, and costs; to delete it:"
      say "  gcloud compute tpus queued-resources delete $name --force" \
        "${where[*]}"
    elif ! drop; then
      say "$name could not be deleted, and costs"
      ended=1
    fi
  fi
  exit "$ended"
}
trap finish EXIT

# Prints a field of the one that is called so; nothing: there is none.
ask() {  # KIND FIELD
  for _ in 1 2 3 4 5; do
    if tpus "$1" list --filter="name~/$name\$" --format="value($2)"; then
      return 0  # a bare one, in a trap, would be the exit's
    fi
    sleep "$poll"
  done
  say "no answer about $name"
  return 1
}
state() { ask queued-resources state.state; }

create() {
  say "asking for $type as $name"
  tpus queued-resources create "$name" --node-id="$name" \
    --accelerator-type="$type" --runtime-version="${runtime:-$image}" \
    --labels="launcher=$maker" ${more[@]+"${more[@]}"} >&2
}

drop() {
  say "deleting $name"
  for _ in 1 2 3 4 5; do
    if tpus queued-resources delete "$name" --force >&2; then return 0; fi
    sleep "$poll"
  done
  return 1
}

# Makes it, or finds it, and waits for it; 1: it did not come.
obtain() {
  local now last=''
  now=$(state) || return 1
  if [[ -n $now && -z $ours ]]; then
    [[ $(ask queued-resources 'tpu.nodeSpec[0].node.labels.launcher') == \
      "$maker" ]] || fail --name "$name" 'a name of none but this script'"'"'s'
  fi
  ours=1
  case $now in
    SUSPENDING | SUSPENDED | FAILED) drop && now='' || return 1 ;;
  esac
  if [[ -z $now ]]; then
    create || { unmade=1; return 1; }
  fi
  while :; do
    go_on
    now=$(state) || return 1
    [[ $now == "$last" ]] || say "$name: ${now:-gone}"
    last=$now
    case $now in
      ACTIVE) return 0 ;;
      '' | SUSPENDING | SUSPENDED | FAILED) return 1 ;;
    esac
    nap "$poll"
  done
}

send_code() {
  [[ -z $(git -C "$here" status --porcelain --untracked-files=no) ]] ||
    say 'what is not committed stays here'
  git -C "$here" archive --format=tar.gz HEAD >"$archive"
  tpus tpu-vm scp "$archive" "$name:bignas_jax.tar.gz" --worker=all >&2 &&
    on_all 'if [ -d bignas_jax ]; then bignas_jax/launch/worker.sh clear; fi &&
      rm -rf bignas_jax && mkdir bignas_jax &&
      tar -xzf bignas_jax.tar.gz -C bignas_jax && bignas_jax/launch/install.sh'
}

# --- the command -------------------------------------------------------------

command=$(printf '%q ' "$@")
session=$(date +%Y%m%d-%H%M%S)

run() {  # ATTEMPT; sets `status`
  running=$session-$1
  on_all "bignas_jax/launch/worker.sh run $running -- $command" &
  await $!
  # gcloud's is that of the first worker that failed; another may know better.
  if ((status)); then
    local all
    all=$(on_all "bignas_jax/launch/worker.sh status $running") || true
    if grep -qx 2 <<<"$all"; then status=2; fi
  fi
  running=''
}

ready='' unmade='' ended=75  # 75: as long as it has not come to run
for ((attempt = 1; attempt <= attempts; attempt++)); do
  go_on
  if [[ -z $ready ]]; then
    if obtain && send_code; then
      ready=1
    else
      go_on
      ((attempt > 1)) || [[ -z $unmade ]] || exit 1  # gcloud has said why
      say "attempt $attempt of $attempts: no slice to run on"
      nap "$pause"
      continue
    fi
  fi
  run "$attempt"
  ended=$status
  case $ended in 0 | 2) exit "$ended" ;; esac
  [[ -z $stopping ]] || exit "$ended"
  if [[ $(state) == ACTIVE && $(ask tpu-vm state) == READY ]]; then
    say "attempt $attempt of $attempts ended with status $ended"
    ((ended == 75)) || nap "$pause"
  else
    say "attempt $attempt of $attempts: the slice was taken away"
    ready='' ended=75
    [[ -z $(state) ]] || drop
  fi
done
say "gave up after $attempts attempts"
exit "$ended"
