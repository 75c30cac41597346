"""Search by additive scores: each choice of a decision has a share in accuracy.

The shares follow from children that differ from one child in one decision. They
are measured once: a later search under other limits finds these children in the
archive, and spends its evaluations on checking what it predicts.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import variation
from bignas_jax.strategies.problem import Problem, Search

_TRIES = 1500  # children that a proposal is chosen from
_ROUND = 8  # children that are scored before shares are fitted again
_PROMISING = 50  # of these, how many have children
_MUTATIONS = (0.05, 0.1, 0.2)  # probabilities that a decision is redrawn
_RIDGE = 1e-6  # keeps shares finite of choices that no scored child has


def search(problem: Problem, settings: Search) -> None:
  """Scores single replacements of one child, then the best by their shares.

  The one child is the biggest, or the problem's start if the biggest does not
  keep the limits. Replacements that are in the archive are not asked for again.
  """
  rng = arch_lib.generator(settings.seed, 5)
  base = arch_lib.biggest(problem.space)
  if not problem.fits(base):
    base = problem.start
  new = [
    arch
    for arch in (base, *replacements(problem.space, base))
    if problem.fits(arch) and arch not in problem.archived
  ]
  # The last evaluation is for what the shares promise.
  first = new[: settings.evaluations - 1]
  scored = {arch: problem.score(arch) for arch in first}
  while len(scored) < settings.evaluations:
    shares = fit(problem.space, {**problem.archived, **scored})
    left = settings.evaluations - len(scored)
    best = promising(problem, shares, scored, rng)[: min(left, _ROUND)]
    if not best:
      return  # no other child that fits was met
    scored |= {arch: problem.score(arch) for arch in best}


def replacements(space: Space, base: Arch) -> list[Arch]:
  """Returns the children that differ from one child in one decision."""
  values = arch_lib.read(space, base)
  others = [
    arch_lib.write(space, [*values[:i], choice, *values[i + 1 :]])
    for i, gene in enumerate(decisions.genes(space))
    for choice in gene.choices
    if choice != values[i]
  ]
  # Choices of blocks that the child has not make no difference.
  return [arch for arch in dict.fromkeys(others) if arch != base]


def fit(space: Space, scores: Mapping[Arch, float]) -> list[dict[int, float]]:
  """Returns each decision's shares in the score, by choice.

  They are those of least squares: exact where scores are additive.
  """
  genes = decisions.genes(space)
  columns = [(i, c) for i, gene in enumerate(genes) for c in gene.choices]
  if not scores:
    return [dict.fromkeys(gene.choices, 0.0) for gene in genes]
  one_hot = _one_hot(space, scores)
  target = np.array(list(scores.values()))
  target -= target.mean()
  square = one_hot.T @ one_hot + _RIDGE * np.eye(len(columns))
  solved = np.linalg.solve(square, one_hot.T @ target)
  shares: list[dict[int, float]] = [{} for _ in genes]
  for (i, choice), share in zip(columns, solved, strict=True):
    shares[i][choice] = float(share)
  return shares


def _one_hot(space: Space, archs: Iterable[Arch]) -> np.ndarray:
  """Returns 1 for each choice that a child has, else 0, [children, choices]."""
  genes = decisions.genes(space)
  columns = [(i, c) for i, gene in enumerate(genes) for c in gene.choices]
  values = np.array([arch_lib.read(space, arch) for arch in archs])
  return np.stack([values[:, i] == c for i, c in columns], 1).astype(float)


def standard_error(
  space: Space, shares: list[dict[int, float]], scores: Mapping[Arch, float]
) -> float:
  """Returns the standard error of scores that shares predict.

  It is infinite if there are no more scores than independent shares.

  Args:
    space: space of the children.
    shares: what `fit` returned for the scores.
    scores: score of each child.
  """
  free = len(scores) - int(np.linalg.matrix_rank(_one_hot(space, scores)))
  if free <= 0:
    return math.inf
  mean = sum(scores.values()) / len(scores)
  squares = (
    (score - mean - predict(space, shares, arch)) ** 2
    for arch, score in scores.items()
  )
  return math.sqrt(sum(squares) / free)


def predict(space: Space, shares: list[dict[int, float]], arch: Arch) -> float:
  """Returns the sum of a child's shares: its score, but for a constant."""
  pairs = zip(shares, arch_lib.read(space, arch), strict=True)
  return sum(of_gene[value] for of_gene, value in pairs)


def promising(
  problem: Problem, shares, scored: Mapping[Arch, float], rng
) -> list[Arch]:
  """Returns unscored children that fit, the most promising by shares first.

  They are looked for by evolution: a child born of promising ones takes the
  place of the least promising one. None is evaluated.
  """
  space = problem.space
  promising = {problem.start: predict(space, shares, problem.start)}
  fresh: dict[Arch, float] = {}
  for number in range(_TRIES):
    parents = list(promising)
    mother, father = (parents[i] for i in rng.integers(len(parents), size=2))
    if number % 4 == 0:
      mother = arch_lib.sample(space, rng)
    arch = variation.crossover(space, mother, father, rng)
    arch = variation.mutate(space, arch, rng, float(rng.choice(_MUTATIONS)))
    if arch in promising or not problem.fits(arch):
      continue
    promising[arch] = predict(space, shares, arch)
    if arch not in scored:
      fresh[arch] = promising[arch]
    if len(promising) > _PROMISING:
      del promising[min(promising, key=promising.__getitem__)]
  if problem.start not in scored:
    fresh[problem.start] = predict(space, shares, problem.start)
  return sorted(fresh, key=lambda arch: -fresh[arch])
