"""Strategies of a search by name, and the checks of what they are asked."""

from collections.abc import Callable, Iterable

from bignas_jax.costs.limits import Limits
from bignas_jax.spaces import arch, presets
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import (
  additive,
  batch_norm_scales,
  coarse_to_fine,
  evolution,
  greedy,
  nsga2,
  pareto_bins,
  predictor,
  problem,
)
from bignas_jax.strategies.problem import Problem, Search
from bignas_jax.values import errors, functions

Strategy = Callable[[Problem, Search], None]
STRATEGIES: dict[str, Strategy] = {
  'additive': additive.search,
  'batch_norm_scales': batch_norm_scales.search,
  'coarse_to_fine': coarse_to_fine.search,
  'evolution': evolution.search,
  'greedy': greedy.search,
  'nsga2': nsga2.search,
  'pareto_bins': pareto_bins.search,
  'predictor': predictor.search,
  'random': problem.random,
}
_FIELD = '--strategy'
# What a limit needs, for costs that are not always known.
_MISSING = {'latency_ms': 'such limits with a --latency_table'}


def get(strategy: str) -> Strategy:
  """Returns the function of a strategy.

  Args:
    strategy: a key of `STRATEGIES`, or the name of a function of one's own,
      such as `package.module:function`.

  Raises:
    UserError: there is no such strategy.
  """
  if functions.is_name(strategy):
    return functions.load(_FIELD, strategy, (Problem, Search), type(None))
  if not isinstance(strategy, str) or strategy not in STRATEGIES:
    allowed = errors.one_of((*STRATEGIES, functions.FORM), strategy)
    raise errors.UserError(_FIELD, strategy, allowed)
  return STRATEGIES[strategy]


def check(
  strategy: str, limits: Limits, settings: Search, costs: Iterable[str]
) -> None:
  """Raises UserError if a search cannot be run with these limits and settings.

  Args:
    strategy: name of the strategy, as in `get`.
    limits: limits on costs.
    settings: settings of the strategy.
    costs: names of the costs that are known.
  """
  get(strategy)
  if strategy == 'batch_norm_scales':
    batch_norm_scales.check(limits.to_dict())
  names = list(costs)
  for field, value in limits.to_dict().items():
    name = field.partition('_')[2]
    if name not in names:
      allowed = _MISSING.get(name, f'limits on {errors.one_of(names, name)}')
      raise errors.UserError(f'--{field}', value, allowed)
  for name in settings.objectives:
    if name not in names:
      allowed = _MISSING.get(name, errors.one_of(names, name))
      raise errors.UserError('search.objectives', name, allowed)


def planned(
  strategy: str, space: Space, fits: Callable[[Arch], bool], settings: Search
) -> int:
  """Returns how many children the search evaluates at most."""
  first = sum(map(fits, published(space)))
  if strategy == 'coarse_to_fine':
    return first + coarse_to_fine.planned(space, fits, settings)
  if strategy == 'batch_norm_scales':
    return first + 1
  return first + settings.evaluations


def published(space: Space) -> list[Arch]:
  """Returns the presets of a space, which a search must beat."""
  named = presets.of_space(space.name).values()
  return [p.arch for p in named if arch.contains(space, p.arch)]
