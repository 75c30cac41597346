"""A run on one page: `report.html`, from the files of the work directory.

The page needs no network and no script.
"""

import datetime
import json
from typing import Any

from etils import epath

from bignas_jax.costs import counting
from bignas_jax.policies import policies
from bignas_jax.reporting import (
  children,
  formats,
  learning_curves,
  page,
  rankings,
  run_files,
  search_results,
)
from bignas_jax.reporting.run_files import RunFiles
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import run_card
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.system import files
from bignas_jax.values import errors


def write(
  workdir: epath.Path, table: epath.Path | None = None
) -> dict[str, Any]:
  """Writes `report.html`; parts that are not there yet are named.

  Args:
    workdir: the directory of a run, finished or not.
    table: a file that `benchmark table` wrote, to show latencies; None: none.

  Returns:
    The page's path and the key results.

  Raises:
    UserError: the directory is not a run's, one of its files is damaged, or
      the page cannot be written.
  """
  path = workdir / 'report.html'
  run = run_files.read(workdir, table)
  if path.is_dir():
    raise errors.UserError(
      '--workdir', str(path), 'a file of that name, or none'
    )
  files.check_writable(path, '--workdir')
  results = _results(run)
  files.write_text(path, page.render(**_shown(run), results=results))
  return {'report': str(path)} | results


def _results(run: RunFiles) -> dict[str, Any]:
  """Returns the key results, which the command prints."""
  tested = run.curves('eval/{}/top1')
  last = {role: points[-1][1] for role, points in tested.items()}
  results: dict[str, Any] = {
    'step': run.step,
    'biggest_test_top1': last.get('biggest'),
    'smallest_test_top1': last.get('smallest'),
    'evaluated': len(run.entries),
    'children': [child.name for child in run.children],
    'best': None,
  }
  if run.best is not None:
    results['best'] = {
      'macs': run.best.macs,
      'params': run.best.params,
      'held_out_top1': formats.number(run.best.top1),
      'test_top1': _test_top1(run, run.best_arch),
    }
  return results


def _test_top1(run: RunFiles, arch: Arch | None) -> float | None:
  """Returns the test accuracy of an extracted child of this architecture."""
  for child in run.children:
    accuracy = child.info.accuracy
    if child.arch == arch and accuracy.split == 'test':
      return formats.number(accuracy.top1)
  return None


def _shown(run: RunFiles) -> dict[str, Any]:
  """Returns what the page's templates show, but for the results."""
  policy = config_lib.policy(run.config)
  evaluated = policies.evaluated(policy, run.space)
  compared = run.calibration and search_results.compared(run.calibration)
  return {
    'run': run,
    'today': datetime.date.today().isoformat(),
    'networks': f'{arch_lib.count(run.space):,}',
    'costs': {
      role: counting.cost(run.space, arch) for role, arch in evaluated.items()
    },
    'roles': policy.roles,
    'pictures': learning_curves.pictures(run)
    | ({} if run.is_one else search_results.pictures(run))
    | rankings.pictures(run)
    | children.pictures(run),
    'teachers': learning_curves.teachers(run.config),
    'images_per_s': learning_curves.images_per_s(run),
    'compared': compared or (),
    'front': search_results.front(run),
    'sizes': [counting.cost(run.space, row.arch) for row in run.sizes],
    'ranked': rankings.rows(run),
    'versions': run_card.versions(),
    'config': json.dumps(run.record.config, indent=2),
  }
