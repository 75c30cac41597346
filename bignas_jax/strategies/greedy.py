"""Greedy slimming: the width that costs least accuracy is lowered, repeatedly.

Source: AutoSlim (arXiv:1903.11728), section 3.3. Widths that are tied, as those
of a width multiplier, are one decision and are lowered together.
"""

from collections.abc import Iterable, Iterator

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies.problem import Problem, Search

_WIDTHS = ('width', 'multiplier')  # fields of the decisions that are lowered


def search(problem: Problem, settings: Search) -> None:
  """Scores a trajectory of ever narrower children until one keeps the limits.

  Only widths are lowered. All other decisions are those of the biggest child,
  or of the problem's start if no width would be low enough with them.

  Unlike other strategies, this one scores children that break the limits, and
  it ends where the limits hold, whatever evaluations are left. All that it
  scores is archived, so that a search with tighter limits goes on where this
  one ended: an archived child needs no evaluation.

  A step takes an evaluation for each width that can be lowered. If those that
  are left do not suffice for another step, all widths are lowered alike, in the
  order of their last scores, and only the first child that keeps the limits is
  scored. A trajectory may skip over a lower limit; then the problem's start is
  scored. So there is always an answer.
  """
  scores = _Scores(problem, settings.evaluations)
  last = _trajectory(problem, scores)[-1]
  scores(last if problem.fits(last) else problem.start)
  fitting = {a: s for a, s in scores.of.items() if problem.fits(a)}
  best = max(fitting, key=fitting.__getitem__)
  if best in problem.archived:  # it may not have been asked for yet
    problem.score(best)


def narrower(space: Space, arch: Arch) -> dict[int, Arch]:
  """Returns the children with one width lowered by one choice, by decision."""
  values, children = arch_lib.read(space, arch), {}
  for i, gene in enumerate(decisions.genes(space)):
    if gene.field not in _WIDTHS:
      continue
    lower = sorted((c for c in gene.choices if c < values[i]), reverse=True)
    others = (
      arch_lib.write(space, [*values[:i], choice, *values[i + 1 :]])
      for choice in lower
    )
    # Two multipliers may round to the same widths.
    child = next((other for other in others if other != arch), None)
    if child is not None:
      children[i] = child
  return children


class _Scores:
  """Scores of children, which are asked for unless they are archived.

  Attributes:
    of: the scores so far, by child.
    left: number of evaluations that are left.
  """

  def __init__(self, problem: Problem, evaluations: int):
    self._problem = problem
    self.of: dict[Arch, float] = {}
    self.left = evaluations

  def __call__(self, arch: Arch) -> float:
    """Returns a child's score."""
    if arch in self._problem.archived:
      self.of[arch] = self._problem.archived[arch]
    elif arch not in self.of:
      self.left -= 1
      self.of[arch] = self._problem.score(arch)
    return self.of[arch]

  def suffice(self, archs: Iterable[Arch]) -> bool:
    """Returns whether the evaluations left are for these and one more."""
    new = {*archs} - {*self.of} - {*self._problem.archived}
    return len(new) < self.left


def _trajectory(problem: Problem, scores: _Scores) -> list[Arch]:
  """Returns the children from the widest one to the first that fits.

  If none fits, the last one is the narrowest. Children have no scores from
  where evaluations do not suffice.
  """
  arch = _widest(problem)
  path, order = [arch], _by_saving(problem, arch)
  if scores.suffice([arch]):
    scores(arch)
  while not problem.fits(arch):
    children = narrower(problem.space, arch)
    if not children:
      break
    if not scores.suffice(children.values()):
      return path + list(_lowered_alike(problem, arch, order))
    order = _by_score(problem, children, scores)
    arch = children[order[0]]
    path.append(arch)
  return path


def _by_score(
  problem: Problem, children: dict[int, Arch], scores: _Scores
) -> list[int]:
  """Returns decisions, first that of the highest score, then least MACs."""
  worth = {
    i: (scores(child), -problem.costs(child)['macs'])
    for i, child in children.items()
  }
  return sorted(worth, key=worth.__getitem__, reverse=True)


def _by_saving(problem: Problem, arch: Arch) -> list[int]:
  """Returns decisions, first that whose lowering saves the most MACs."""
  children = narrower(problem.space, arch)
  return sorted(children, key=lambda i: problem.costs(children[i])['macs'])


def _lowered_alike(
  problem: Problem, arch: Arch, order: list[int]
) -> Iterator[Arch]:
  """Yields ever narrower children up to the first that fits, without scores.

  Each width is lowered by one choice, in this order, then each by another.
  """
  while narrower(problem.space, arch):
    for i in order:
      child = narrower(problem.space, arch).get(i)
      if child is not None:
        arch = child
        yield arch
        if problem.fits(arch):
          return


def _widest(problem: Problem) -> Arch:
  """Returns the child that a trajectory begins with.

  It is the biggest if lowering widths can make it keep the limits; else the
  problem's start with its widths raised.
  """
  biggest = arch_lib.biggest(problem.space)
  order = _by_saving(problem, biggest)
  path = (biggest, *_lowered_alike(problem, biggest, order))
  if any(map(problem.fits, path)):
    return biggest
  genes = decisions.genes(problem.space)
  start = arch_lib.read(problem.space, problem.start)
  values = [
    gene.choices[-1] if gene.field in _WIDTHS else value
    for gene, value in zip(genes, start, strict=True)
  ]
  return arch_lib.write(problem.space, values)
