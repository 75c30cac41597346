"""Random changes of architectures, as evolution makes them."""

import numpy as np

from bignas_jax.spaces.arch import Arch, read, write
from bignas_jax.spaces.decisions import drawn, genes
from bignas_jax.spaces.space import Space


def mutate(
  space: Space, arch: Arch, rng: np.random.Generator, probability: float
) -> Arch:
  """Redraws each decision with the given probability."""
  values = [
    drawn(gene.choices, rng) if rng.random() < probability else value
    for gene, value in zip(genes(space), read(space, arch), strict=True)
  ]
  return write(space, values)


def crossover(
  space: Space, mother: Arch, father: Arch, rng: np.random.Generator
) -> Arch:
  """Takes each decision from either parent with equal chance."""
  pairs = zip(read(space, mother), read(space, father), strict=True)
  return write(space, [drawn(pair, rng) for pair in pairs])
