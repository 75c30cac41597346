"""Search with a predictor that learns accuracies and proposes children.

A predicted accuracy never counts as a result: each child that is chosen is
evaluated. scikit-learn is imported where it is used, since that takes seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import problem as problem_lib
from bignas_jax.strategies.problem import Problem, Search

_FOLDS = 5


def search(problem: Problem, settings: Search) -> None:
  """Scores random children, then those with the highest predicted accuracy.

  The predictor also learns from `problem.archived`. Of the candidates for each
  child to evaluate (`settings.candidates`), half are drawn uniformly and half
  are mutants of the best children.
  """
  rng = arch_lib.generator(settings.seed, 4)
  first = min(settings.population, settings.evaluations)
  scored = {
    arch: problem.score(arch) for arch in problem_lib.draw(problem, first, rng)
  }
  while len(scored) < settings.evaluations:
    candidates = _candidates(problem, scored, settings, rng)
    if not candidates:
      return  # all children that fit are known
    model = fit(problem.space, {**problem.archived, **scored}, settings.seed)
    promised = model.predict(features(problem.space, candidates))
    order = np.argsort(-promised, kind='stable')
    round_size = min(_batch(settings), settings.evaluations - len(scored))
    for i in order[:round_size]:
      scored[candidates[i]] = problem.score(candidates[i])


def _batch(settings: Search) -> int:
  """Returns the number of children to evaluate between two fits."""
  return max(1, settings.population // 3)


def _candidates(problem: Problem, scored, settings: Search, rng) -> list[Arch]:
  best = sorted(scored, key=lambda a: -scored[a])[: settings.population]
  samplers = (
    lambda: arch_lib.sample(problem.space, rng),
    lambda: arch_lib.mutate(
      problem.space,
      problem_lib.mostly_first(best, rng),
      rng,
      settings.mutation,
    ),
  )
  candidates: dict[Arch, None] = {}
  for make in samplers:
    for _ in range(settings.candidates * _batch(settings) // 2):
      arch = problem_lib.try_new(problem, scored | candidates, make)
      if arch is None:
        break
      candidates[arch] = None
  return list(candidates)


def features(space: Space, archs: Sequence[Arch]) -> np.ndarray:
  """Returns the index of each decision's choice, [children, decisions]."""
  genes = decisions.genes(space)
  return np.array(
    [
      [gene.choices.index(v) for gene, v in zip(genes, values, strict=True)]
      for values in (arch_lib.read(space, arch) for arch in archs)
    ],
    float,
  )


def fit(space: Space, scores: Mapping[Arch, float], seed: int) -> Any:
  """Fits gradient-boosted trees that predict top-1 from `features`."""
  import sklearn.ensemble

  model = sklearn.ensemble.GradientBoostingRegressor(random_state=seed)
  return model.fit(features(space, list(scores)), list(scores.values()))


def quality(
  space: Space, scores: Mapping[Arch, float]
) -> dict[str, Any] | None:
  """Measures by cross-validation how well accuracies can be predicted.

  Args:
    space: space of the children.
    scores: top-1 of each child.

  Returns:
    A dict with `children`, their number; `folds`; `rank_correlation`,
    Spearman's correlation of predicted and measured top-1; `mean_abs_error` of
    top-1; and the lists `predicted` and `measured`. Each prediction comes from
    a model that was not fitted on the child's fold. None if there are too few
    children, or if all have the same score.
  """
  import scipy.stats
  import sklearn.model_selection

  archs = list(scores)
  if len(archs) < 4 * _FOLDS or len(set(scores.values())) == 1:
    return None
  measured = np.array([scores[arch] for arch in archs])
  predicted = np.empty(len(archs))
  folds = sklearn.model_selection.KFold(_FOLDS, shuffle=True, random_state=0)
  for others, held_out in folds.split(archs):
    learnt = {archs[i]: scores[archs[i]] for i in others}
    model = fit(space, learnt, seed=0)
    predicted[held_out] = model.predict(
      features(space, [archs[i] for i in held_out])
    )
  correlation: Any = scipy.stats.spearmanr(predicted, measured)
  return {
    'children': len(archs),
    'folds': _FOLDS,
    'rank_correlation': float(correlation.statistic),
    'mean_abs_error': float(np.abs(predicted - measured).mean()),
    'predicted': predicted.tolist(),
    'measured': measured.tolist(),
  }
