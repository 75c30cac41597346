"""A refactor changes no program (`fingerprints` renews the hashes)."""

import json

import fingerprints
import jax
import pytest

GOLDEN = json.loads(fingerprints.GOLDEN.read_text())
OF_ITS_JAX = pytest.mark.skipif(
  GOLDEN['jax'] != jax.__version__, reason=f'hashes of jax {GOLDEN["jax"]}'
)


@OF_ITS_JAX
@pytest.mark.parametrize(
  'name', ['tiny', pytest.param('imagenet', marks=pytest.mark.slow)]
)
def test_programs_are_what_they_were(name):
  assert fingerprints.of(name) == GOLDEN[name]
