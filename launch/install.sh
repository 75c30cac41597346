#!/usr/bin/env bash
# Makes .venv on a TPU VM: the versions of requirements.txt, JAX for TPUs, and
# what gs:// needs. The image's own Python is too old; uv brings another one.
#
#   launch/install.sh [PYTHON]   such as 3.12, the default
set -euo pipefail
cd "$(dirname "$0")/.."

# Newer images let pip touch nothing but environments, unless told so.
PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user \
  "$(grep '^uv==' requirements.txt)"
uv() { python3 -m uv --quiet "$@"; }
uv venv --clear --python "${1:-3.12}" .venv
uv pip install --python .venv/bin/python --constraint requirements.txt \
  --editable '.[tpu,gcs]'
