"""Fingerprints of the lowered programs: what a refactor must not change.

  PYTHONPATH=.:tests .venv/bin/python -m fingerprints

writes `tests/golden/fingerprints.json` anew. Do so only after a change that is
meant to change programs, and say in its commit which ones it changes, and why.

A fingerprint is the SHA-256 of a program's StableHLO text, without locations in
the source: it depends on the version of JAX, which is kept beside them.
"""

import dataclasses
import hashlib
import importlib
import json
import pathlib

import conftest  # noqa: F401 (four CPU devices)
import jax
import numpy as np
import tiny

from bignas_jax.methods import programs, step
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.supernet import evaluation
from bignas_jax.system import mesh as mesh_lib

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'fingerprints.json'
CONFIGS = {
  'tiny': tiny.config,
  'imagenet': lambda: importlib.import_module('configs.imagenet').get_config(),
}


def of(name: str) -> dict[str, str]:
  """Returns the fingerprints of a config's programs, by the program's name."""
  config = CONFIGS[name]()
  setup = config_lib.setup(config, mesh_lib.create(jax.devices()[:4]))
  lowered = {
    program: lower()
    for program, lower in programs.lowering(
      programs.all_programs(setup)
    ).items()
  }
  lowered['init'] = jax.jit(step.init_state(setup)).lower()
  if name == 'tiny':
    lowered |= _evaluation(config, setup)
  return {
    program: hashlib.sha256(one.as_text().encode()).hexdigest()
    for program, one in sorted(lowered.items())
  }


def _evaluation(config: Config, setup: step.Setup) -> dict:
  """Returns the lowered programs of evaluation, elastic and of a child."""
  size, child = setup.model.image_size, arch_lib.smallest(setup.model.space)
  images = np.zeros((config.calibration.batch_size, size, size, 1), np.uint8)
  labels = np.zeros(len(images), np.int32)
  batch = {'image': images, 'label': labels, 'mask': labels == 0}
  found = {}
  own = pinning.pin(setup.model.space, child)
  alone = dataclasses.replace(setup.model, space=own)
  for whose, model in ('elastic', setup.model), ('child', alone):
    evaluator = evaluation.Evaluator(model, [batch], [batch])
    for kind in 'moments', 'logits':
      found[f'{whose} {kind}'] = evaluator._lower(kind, child.resolution)
  return found


def main() -> None:
  """Writes the fingerprints of all programs."""
  found = {name: of(name) for name in CONFIGS}
  text = json.dumps({'jax': jax.__version__, **found}, indent=2)
  GOLDEN.write_text(text + '\n')


if __name__ == '__main__':
  main()
