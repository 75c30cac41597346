"""Children at a drawn cost, for policies that compare children of equal cost.

AttentiveNAS (CVPR 2021, section 3.2) draws a bucket of MACs as often as uniform
children fall into it, and then children of that bucket: each decision by its
distribution inside the bucket, again until the child's MACs are right.
"""

import collections
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bignas_jax.costs import counting
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space

SAMPLES = 5000  # uniform children that a table is made of, in seconds
_MOST_TRIES = 100  # draws of a child before the bucket's stored child is used


class Bucket(NamedTuple):
  """Children between two multiples of `Table.width` MACs.

  Attributes:
    share: share of uniform children.
    shares: for each decision of `decisions.genes`, shares of its choices.
    child: one of the children.
  """

  share: float
  shares: tuple[np.ndarray, ...]
  child: Arch


class Table(NamedTuple):
  """The buckets of a space, by number: that of MACs m is m // width."""

  width: int
  buckets: dict[int, Bucket]


@functools.cache
def build(space: Space, width: int, samples: int = SAMPLES) -> Table:
  """Returns the table of a space, the same at every call.

  Args:
    space: space of the children, at the resolutions of training.
    width: width of a bucket in MACs.
    samples: number of uniform children that distributions are taken from.
  """
  rng, genes = arch_lib.generator(0), decisions.genes(space)
  choices = [gene.choices for gene in genes]
  choices[0] = space.train_resolution  # the first gene is the resolution
  inside: dict[int, list[Arch]] = collections.defaultdict(list)
  for arch in _draw(space, rng, samples, choices, [None] * len(genes)):
    inside[counting.cost(space, arch).macs // width].append(arch)

  def bucket(archs: list[Arch]) -> Bucket:
    values = np.array([arch_lib.read(space, arch) for arch in archs])
    shares = [
      (values[:, i, None] == np.array(gene.choices)).mean(0)
      for i, gene in enumerate(genes)
    ]
    return Bucket(len(archs) / samples, tuple(shares), archs[0])

  return Table(width, {n: bucket(archs) for n, archs in sorted(inside.items())})


def draw(
  space: Space, table: Table, number: int, rng: np.random.Generator
) -> list[Arch]:
  """Draws a bucket, and then children of it.

  Args:
    space: space of the table.
    table: the buckets.
    number: number of children.
    rng: generator, which is consumed.
  """
  numbers = list(table.buckets)
  shares = [table.buckets[n].share for n in numbers]
  chosen = int(rng.choice(numbers, p=shares))
  return [_child(space, table, chosen, rng) for _ in range(number)]


def _child(space: Space, table: Table, number: int, rng: Any) -> Arch:
  bucket = table.buckets[number]
  choices = [gene.choices for gene in decisions.genes(space)]
  for arch in _draw(space, rng, _MOST_TRIES, choices, bucket.shares):
    if counting.cost(space, arch).macs // table.width == number:
      return arch
  return bucket.child


def _draw(
  space: Space,
  rng: np.random.Generator,
  number: int,
  choices: Sequence[Sequence[int]],
  shares: Sequence[np.ndarray | None],
) -> Iterator[Arch]:
  """Yields children whose decisions are drawn independently.

  All are drawn at once, which is much faster than one by one.
  """
  values = [
    rng.choice(some, size=number, p=p)
    for some, p in zip(choices, shares, strict=True)
  ]
  for row in zip(*values, strict=True):
    yield arch_lib.write(space, [int(value) for value in row])
