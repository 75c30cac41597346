"""Search with a predictor that learns accuracies and proposes children.

A predicted accuracy never counts as a result: each child that is chosen is
evaluated. scikit-learn is imported where it is used, since that takes seconds.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import predicted_evolution, variation
from bignas_jax.strategies import problem as problem_lib
from bignas_jax.strategies.problem import Problem, Search

_FOLDS = 5
_HIDDEN = (400, 400, 400)  # Once-for-All, section 3.4

# Children -> their predicted top-1, 0..1.
Predict = Callable[[Sequence[Arch]], list[float]]


def search(problem: Problem, settings: Search) -> None:
  """Scores random children, then those with the highest predicted accuracy.

  One of the first children is the biggest, if it fits: it is often the best.
  The predictor (`settings.predictor`) also learns from `problem.archived`. It
  is fitted again after each round of proposals (`settings.proposals`). With the
  proposals of `evolution`, a population of n, and n + n / 3 evaluations, the
  search is Once-for-All's (arXiv:1908.09791, section 3.4): one fit to n
  children, one evolution over its predictions.
  """
  rng = arch_lib.generator(settings.seed, 4)
  first = min(settings.population, settings.evaluations)
  drawn = problem_lib.draw(problem, first, rng)
  biggest = arch_lib.biggest(problem.space)
  if problem.fits(biggest) and biggest not in drawn:
    drawn[0] = biggest
  scored = {arch: problem.score(arch) for arch in drawn}
  propose = _PROPOSALS[settings.proposals]
  while len(scored) < settings.evaluations:
    scores = {**problem.archived, **scored}
    predict = fit(problem.space, scores, settings.seed, settings.predictor)
    proposed = propose(problem, scored, predict, settings, rng)
    if not proposed:
      return  # all children that fit are known
    order = sorted(proposed, key=lambda arch: -proposed[arch])
    round_size = min(_batch(settings), settings.evaluations - len(scored))
    scored |= {arch: problem.score(arch) for arch in order[:round_size]}


def _batch(settings: Search) -> int:
  """Returns the number of children to evaluate between two fits."""
  return max(1, settings.population // 3)


def _draws(
  problem: Problem, scored, predict: Predict, settings: Search, rng
) -> dict[Arch, float]:
  """Returns predictions of random children and of mutants of the best."""
  best = sorted(scored, key=lambda a: -scored[a])[: settings.population]
  samplers = (
    lambda: arch_lib.sample(problem.space, rng),
    lambda: variation.mutate(
      problem.space,
      problem_lib.mostly_first(best, rng),
      rng,
      settings.mutation,
    ),
  )
  drawn: dict[Arch, None] = {}
  for make in samplers:
    for _ in range(settings.candidates * _batch(settings) // 2):
      arch = problem_lib.try_new(problem, scored | drawn, make)
      if arch is None:
        break
      drawn[arch] = None
  return _predictions(predict, list(drawn))


def _evolved(
  problem: Problem, scored, predict: Predict, settings: Search, rng
) -> dict[Arch, float]:
  """Returns predictions of all unscored children that an evolution meets."""
  met = predicted_evolution.evolve(problem, predict, settings, rng)
  return {arch: value for arch, value in met.items() if arch not in scored}


_PROPOSALS = {'draws': _draws, 'evolution': _evolved}


def _predictions(predict: Predict, archs: list[Arch]) -> dict[Arch, float]:
  return dict(zip(archs, predict(archs), strict=True)) if archs else {}


def features(space: Space, archs: Iterable[Arch]) -> np.ndarray:
  """Returns the index of each decision's choice, [children, decisions]."""
  genes = decisions.genes(space)
  return np.array(
    [
      [gene.choices.index(v) for gene, v in zip(genes, values, strict=True)]
      for values in (arch_lib.read(space, arch) for arch in archs)
    ],
    float,
  )


def one_hot(space: Space, archs: Iterable[Arch]) -> np.ndarray:
  """Returns 1 for each choice that a child has, else 0, [children, choices]."""
  columns = features(space, archs).astype(int).T
  genes = decisions.genes(space)
  encoded = [
    np.eye(len(gene.choices), dtype=np.float32)[column]
    for gene, column in zip(genes, columns, strict=True)
  ]
  return np.concatenate(encoded, axis=1)


def _trees(seed: int) -> Any:
  import sklearn.ensemble

  return sklearn.ensemble.GradientBoostingRegressor(random_state=seed)


def _mlp(seed: int) -> Any:
  """Returns Once-for-All's predictor; it learns standardised accuracies.

  Accuracies differ by so little that training would end at once otherwise.
  """
  import sklearn.compose
  import sklearn.neural_network
  import sklearn.preprocessing

  network = sklearn.neural_network.MLPRegressor(
    hidden_layer_sizes=_HIDDEN, random_state=seed
  )
  scaler = sklearn.preprocessing.StandardScaler()
  return sklearn.compose.TransformedTargetRegressor(network, transformer=scaler)


class _Kind(NamedTuple):
  """A kind of predictor: what it reads, and a function that makes one."""

  encode: Callable[[Space, Iterable[Arch]], np.ndarray]
  make: Callable[[int], Any]


_KINDS = {'trees': _Kind(features, _trees), 'mlp': _Kind(one_hot, _mlp)}


def fit(
  space: Space, scores: Mapping[Arch, float], seed: int, kind: str = 'trees'
) -> Predict:
  """Returns a function that predicts top-1, learnt from children's scores.

  Args:
    space: space of the children.
    scores: top-1 of each child to learn from, at least one.
    seed: seed of the predictor.
    kind: `trees` or `mlp`, as `Search.predictor`.
  """
  import sklearn.exceptions
  import threadpoolctl

  encode, make = _KINDS[kind]
  # Threads make small products slower, and sums depend on their number.
  threads = threadpoolctl.threadpool_limits
  with threads(1), warnings.catch_warnings():
    # Many steps are enough, whether or not the loss would still fall.
    warnings.simplefilter('ignore', sklearn.exceptions.ConvergenceWarning)
    model = make(seed).fit(encode(space, scores), [*scores.values()])

  def predict(archs: Sequence[Arch]) -> list[float]:
    with threads(1):
      return model.predict(encode(space, archs)).tolist()

  return predict


def predicted_error(
  space: Space, scores: Mapping[Arch, float], seed: int, kind: str = 'trees'
) -> Predict:
  """Returns a function that predicts top-1 errors, learnt as in `fit`.

  A sampling policy can use it in place of losses: lower is better, and it is
  equal on all hosts, as it is a function of its arguments alone.
  """
  predict = fit(space, scores, seed, kind)
  return lambda archs: [1 - top1 for top1 in predict(archs)]


def quality(
  space: Space, scores: Mapping[Arch, float], kind: str = 'trees'
) -> dict[str, Any] | None:
  """Measures by cross-validation how well accuracies can be predicted.

  Args:
    space: space of the children.
    scores: top-1 of each child.
    kind: kind of predictor, as in `fit`.

  Returns:
    A dict with `predictor`, its kind; `children`, their number; `folds`;
    `rank_correlation`, Spearman's correlation of predicted and measured top-1;
    `mean_abs_error` of top-1; and the lists `predicted` and `measured`. Each
    prediction comes from a predictor that was not fitted on the child's fold.
    None if there are too few children, or if all have the same score.
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
    predict = fit(space, learnt, 0, kind)
    predicted[held_out] = predict([archs[i] for i in held_out])
  correlation: Any = scipy.stats.spearmanr(predicted, measured)
  return {
    'predictor': kind,
    'children': len(archs),
    'folds': _FOLDS,
    'rank_correlation': float(correlation.statistic),
    'mean_abs_error': float(np.abs(predicted - measured).mean()),
    'predicted': predicted.tolist(),
    'measured': measured.tolist(),
  }
