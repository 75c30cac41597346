"""The runs of the arms, each a work directory, and what is measured of them.

An arm's run of a seed is in `DIR/ARM/SEED`. A file in it says how accurate its
children are; where there is one, nothing is done again.
"""

from collections.abc import Sequence
from typing import Any

from etils import epath

from bignas_jax.claims import arms as arms_lib
from bignas_jax.claims import children as children_lib
from bignas_jax.claims import plan as plan_lib
from bignas_jax.claims import tables, verdicts
from bignas_jax.claims.arms import ARMS, BASELINE
from bignas_jax.claims.plan import Plan
from bignas_jax.claims.verdicts import CLAIMS
from bignas_jax.runs import directory
from bignas_jax.runs.config import Config
from bignas_jax.selection import questions
from bignas_jax.system import cluster, console, files, xla
from bignas_jax.training import loop, recovery
from bignas_jax.values import errors

WHAT = 'benchmark claims'


def try_claims(
  config: Config,
  out: epath.Path,
  *,
  claims: Sequence[str],
  arms: Sequence[str],
  seeds: int,
  children: int,
  data: str = '',
  train_images: int | None = None,
) -> dict[str, Any]:
  """Trains the arms that claims compare, and judges the claims.

  Finished runs are not repeated, and interrupted ones go on. The tables are
  written after each run, of all runs that are finished then.

  Args:
    config: config of the baseline.
    out: directory of all runs and tables.
    claims: letters of the claims; empty: all.
    arms: names of the arms that are trained now; empty: all that the claims
      compare.
    seeds: number of seeds, from 0 on.
    children: number of random children.
    data: directory of the images; '': the config's.
    train_images: number of training images, always the same ones; None: all.

  Returns:
    The contents of `claims.json`.

  Raises:
    UserError: there is no such claim or arm; an arm of this config would equal
      the baseline; the directory holds something else; or several processes
      run this.
    Preempted: a signal came; what is finished is kept.
  """
  cluster.refuse(WHAT)
  letters = _chosen('--claims', claims, list(CLAIMS))
  compared = verdicts.arms_of(letters)
  trained = _chosen('--arms', arms, compared)
  plan = plan_lib.make(config, out, children, data, train_images)
  for name in compared:
    arms_lib.check(plan.config, name)
  plan_lib.check_place(plan)
  with (
    recovery.full_disk_as_failed(out, f'{WHAT} --out={out}'),
    questions.alone(out, WHAT),
  ):
    plan_lib.check_place(plan)  # which another command may have begun
    plan_lib.write(plan)
    xla.keep_programs(out / 'compiled')
    searches = any(verdicts.CHOSEN in CLAIMS[one].children for one in letters)
    result = _report(plan, letters, seeds)
    for seed in range(seeds):
      for name in _ordered(trained):
        if _run(plan, name, seed, searches):
          result = _report(plan, letters, seeds)
  return result


def _chosen(
  field: str, names: Sequence[str], allowed: Sequence[str]
) -> list[str]:
  """Returns the chosen names in their usual order; all if none is chosen."""
  for name in names:
    if name not in allowed:
      raise errors.UserError(field, name, errors.one_of(allowed, name))
  return [name for name in allowed if name in names or not names]


def _ordered(trained: Sequence[str]) -> list[str]:
  """Returns the arms and, before those that need its child, the baseline."""
  needs = any(ARMS[name].alone for name in trained)
  return list(dict.fromkeys([BASELINE] * needs + list(trained)))


def _run(plan: Plan, name: str, seed: int, searches: bool) -> bool:
  """Trains and measures an arm's run; returns whether anything was left to do.

  Args:
    plan: the plan.
    name: name of the arm.
    seed: seed of the run.
    searches: whether the baseline's supernet is searched.
  """
  workdir = plan.workdir(name, seed)
  trains = children_lib.read(workdir) is None
  if trains:
    console.say(f'arm {name}, seed {seed}: {ARMS[name].words}')
    _train(plan, name, seed)
  searches &= name == BASELINE and not children_lib.is_searched(workdir)
  if searches:
    console.say(f'searching arm {name}, seed {seed}')
    children_lib.search(workdir, plan.config, seed)
  return trains or searches


def _train(plan: Plan, name: str, seed: int) -> None:
  """Trains an arm's run to its end, and measures its children."""
  workdir, child, package = plan.workdir(name, seed), None, ''
  if ARMS[name].alone is not None:
    base = plan.workdir(BASELINE, seed)
    child = children_lib.chosen(base, plan.config)
    package = str(base / children_lib.PACKAGE)
  config = arms_lib.config_of(plan.config, name, seed, child, package)
  trained = loop.train(config, workdir)
  if ARMS[name].alone is None:
    of_children = children_lib.measure(
      workdir, plan.archs, config.data.directory, name == BASELINE
    )
  else:
    top1 = {verdicts.CHOSEN: trained['eval/biggest/top1']}
    of_children = {'top1': top1}
  sha256 = directory.read(workdir).config_sha256
  about = {'arm': name, 'seed': seed, 'config_sha256': sha256}
  files.write_json(workdir / children_lib.MEASURED, about | of_children)


def _report(plan: Plan, letters: Sequence[str], seeds: int) -> dict[str, Any]:
  """Writes the tables of all that is finished, and returns `claims.json`."""
  measured, missing = {}, []
  for name in verdicts.arms_of(letters):
    for seed in range(seeds):
      top1 = children_lib.read(plan.workdir(name, seed))
      if top1 is None:
        missing.append(f'{name}, seed {seed}')
      else:
        measured.setdefault(name, {})[seed] = top1
  rows = verdicts.rows(measured, letters)
  result = {
    'steps': plan.config.steps,
    'batch_size': plan.config.batch_size,
    'seeds': seeds,
    'random_children': len(plan.archs),
    'level': verdicts.LEVEL,
    'arms': {name: ARMS[name].words for name in verdicts.arms_of(letters)},
    'missing': missing,
    'claims': rows,
  }
  result = files.finite(result)
  files.write_json(plan.out / tables.JSON, result)
  files.write_text(plan.out / tables.MARKDOWN, tables.markdown(result))
  return result
