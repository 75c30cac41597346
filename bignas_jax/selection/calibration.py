"""The effect of calibration: accuracy with statistics of other networks."""

from collections.abc import Callable
from typing import Any

from bignas_jax.costs import counting
from bignas_jax.runs import restore
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.supernet import evaluation
from bignas_jax.system import console


def compare(
  run: restore.Run,
  evaluator: evaluation.Evaluator,
  best: Arch,
  pause: Callable[[], None],
) -> dict[str, Any]:
  """Returns the contents of `search/calibration.json`: top-1 by statistics.

  The biggest, the smallest and the best child are evaluated with their own
  statistics, with those of an untrained batch norm, and with the biggest
  child's.

  Args:
    run: run that the children belong to.
    evaluator: evaluator on held-out images.
    best: child that the search found.
    pause: function called before each evaluation; may raise.
  """
  space, params = run.model.space, run.params
  biggest = arch_lib.biggest(space)
  borrowed = evaluator.calibrate(params, biggest)
  initial = evaluation.initial_statistics(borrowed)
  named = {
    'biggest': biggest,
    'smallest': arch_lib.smallest(space),
    'best': best,
  }

  def top1(stats: Any, arch: Arch) -> float:
    pause()
    return evaluator.evaluate(params, stats, arch).top1

  children = [
    {
      'name': name,
      'arch': arch_lib.to_dict(arch),
      'macs': counting.cost(space, arch).macs,
      'calibrated': top1(evaluator.calibrate(params, arch), arch),
      'uncalibrated': {
        'initial': top1(initial, arch),
        'borrowed': top1(borrowed, arch),
      },
    }
    for name, arch in named.items()
  ]
  for child in children:
    console.say(
      '{name}: top-1 {calibrated:.3f} calibrated, '
      '{uncalibrated[initial]:.3f} with initial statistics, '
      '{uncalibrated[borrowed]:.3f} with those of the biggest'.format(**child)
    )
  return {
    'split': 'held_out',
    'borrowed_from': 'biggest',
    'children': children,
  }
