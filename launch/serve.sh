#!/usr/bin/env bash
# Serves a child over HTTP: health, batching, and a page to drop an image on.
#
#   launch/serve.sh CHILD [--server=litserve] [--port=8000] [OPTION ...]
#
# litserve runs here, in .venv, and takes the options of
# `python -m bignas_jax.serve`. triton and tensorflow are containers (docker),
# which get a model repository that is written first, to CHILD/triton or
# CHILD/tensorflow; OPTIONs go to the server in it. PYTHON is the interpreter
# that exports (.venv/bin/python; tensorflow needs one with TensorFlow), and
# TRITON_IMAGE and TENSORFLOW_IMAGE are what is run. Ports are open to this
# machine alone; HOST=0.0.0.0 opens them.
set -euo pipefail

usage() { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
refuse() { echo "$1" >&2; exit 2; }
[[ $# -gt 0 && $1 != -* ]] || usage
child=$1; shift
server=litserve port=8000 options=()
for argument; do
  case $argument in
    --server=*) server=${argument#*=} ;;
    --port=*) port=${argument#*=} ;;
    *) options+=("$argument") ;;
  esac
done
host=${HOST:-127.0.0.1}
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$python") ]] ||
  refuse "PYTHON: got $python; allowed: an interpreter, such as \`make .venv\` makes"
[[ -f $child/child.json ]] ||
  refuse "CHILD: got $child; allowed: a child package, such as \`extract\` writes"

# Writes CHILD/DIRECTORY, with artifacts that take uint8 images.
export_as() {
  "$python" -m bignas_jax.export --child="$child" --preprocess \
    --format="$1" --out="$child/$2" >/dev/null
}

# Runs IMAGE with DIRECTORY at /models/NAME and its port INSIDE as ours.
contain() {
  local image=$1 directory name=$3 inside=$4; directory=$(cd "$2" && pwd); shift 4
  command -v docker >/dev/null ||
    refuse "--server: got $server; allowed: litserve, where there is no docker"
  exec docker run --rm --init --publish "$host:$port:$inside" \
    --env MODEL_NAME="$name" --volume "$directory:/models/$name:ro" \
    "$image" "$@" "${options[@]}"
}

case $server in
  litserve)
    exec "$python" -m bignas_jax.serve --child="$child" --host="$host" \
      --port="$port" "${options[@]}" ;;
  triton)
    export_as triton triton
    contain "${TRITON_IMAGE:-nvcr.io/nvidia/tritonserver:25.10-py3}" \
      "$child/triton/triton/child" child 8000 \
      tritonserver --model-repository=/models ;;
  tensorflow)
    export_as saved_model tensorflow
    contain "${TENSORFLOW_IMAGE:-tensorflow/serving:2.19.0}" \
      "$child/tensorflow/saved_model" child 8501 ;;
  *) refuse "--server: got $server; allowed: litserve, triton or tensorflow" ;;
esac
