"""What a run uses of other runs: child packages, and evaluated children.

Packages teach it (`loss_graph.Package`), and a predictor of its policy learns
from the children (`attentive.Scores`). A run notes their digests when it
starts, and is resumed with the same ones only.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence

from bignas_jax.deploy import package
from bignas_jax.methods.loss_graph import Package, Rule
from bignas_jax.methods.teachers import Network
from bignas_jax.policies.attentive import Errors, Scores
from bignas_jax.runs.archive import Archive
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import predictor
from bignas_jax.supernet.model import Model
from bignas_jax.system import storage
from bignas_jax.values import errors

_ARCHIVE = 'scores.archive'
_ALLOWED = 'a file of evaluated children, such as RUN/search/archive.csv'
_DIGITS = 6  # of a predicted error


def digested(rule: Rule) -> Rule:
  """Returns the rule with the digests of its packages' weights.

  Raises:
    UserError: a package is missing or damaged.
  """
  packages = tuple(
    dataclasses.replace(one, sha256=_load(one)[1]) for one in rule.packages
  )
  return dataclasses.replace(rule, packages=packages)


def load(rule: Rule, model: Model) -> dict[str, Network]:
  """Returns the networks of a rule's packages, by name.

  Args:
    rule: the loss graph; packages without a digest may be any.
    model: the supernet, which they teach.

  Raises:
    UserError: a package is missing or damaged, or is not the one that the run
      was started with; or its classes or its normalisation are not the run's.
  """
  networks = {}
  for one in rule.packages:
    child, sha256 = _load(one)
    images = child.info['input']
    for what, theirs, ours in (
      ('sha256', sha256, one.sha256 or sha256),
      ('classes', child.space.classes, model.space.classes),
      ('input.mean', tuple(images['mean']), tuple(model.mean)),
      ('input.std', tuple(images['std']), tuple(model.std)),
    ):
      if theirs != ours:
        allowed = f'a child package with {what} {ours}, not {theirs}'
        raise errors.UserError(_field(one), one.path, allowed)
    networks[one.name] = Network(child.space, child.variables)
  return networks


def learnt_from(scores: Scores, space: Space) -> Scores:
  """Returns the scores with number and digest of the predictor's children.

  Raises:
    UserError: the file is missing, damaged, of another space or too short.
  """
  children = _evaluated(scores, space)
  return dataclasses.replace(
    scores, children=len(children), sha256=_sha256(children)
  )


def predicted(scores: Scores, space: Space, seed: int) -> Errors | None:
  """Returns the function that predicts errors; None: losses are compared.

  The predictor is fitted when it is first asked. Predictions are rounded, since
  the last bits may differ on hosts with other processors.

  Args:
    scores: what candidates are compared by; without a digest, children may be
      any.
    space: space of the children.
    seed: seed of the predictor.

  Raises:
    UserError: the file is not there, or its children are not those that the run
      was started with.
  """
  if scores.by == 'loss':
    return None
  children = _evaluated(scores, space)
  sha256 = _sha256(children)
  if scores.sha256 not in ('', sha256):
    allowed = f'a file whose first {scores.children} children have the sha256 '
    allowed += f'{scores.sha256}, not {sha256}'
    raise errors.UserError(_ARCHIVE, scores.archive, allowed)

  @functools.cache
  def fitted() -> Errors:
    top1 = dict(children)  # of a child's several scores, the last
    return predictor.predicted_error(space, top1, seed, scores.predictor)

  def predict(archs: Sequence[Arch]) -> list[float]:
    return [round(error, _DIGITS) for error in fitted()(archs)]

  return predict


def _evaluated(scores: Scores, space: Space) -> list[tuple[Arch, float]]:
  """Returns the children of the file's first lines, with their top-1."""
  path = storage.path(scores.archive, _ARCHIVE)
  if not path.is_file():
    raise errors.UserError(_ARCHIVE, scores.archive, _ALLOWED)
  try:
    entries = Archive(path, space).entries
  except errors.UserError as error:
    allowed = f'{_ALLOWED}, of space {space.name} ({error})'
    raise errors.UserError(_ARCHIVE, scores.archive, allowed) from None
  least = max(2, scores.children)
  if len(entries) < least:
    allowed = f'{_ALLOWED}, at least {least} of them, not {len(entries)}'
    raise errors.UserError(_ARCHIVE, scores.archive, allowed)
  number = scores.children or len(entries)
  return [(entry.arch, entry.top1) for entry in entries[:number]]


def _sha256(children: list[tuple[Arch, float]]) -> str:
  rows = [[arch_lib.to_dict(arch), top1] for arch, top1 in children]
  return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _field(one: Package) -> str:
  return f'rule.packages of {one.name}'


def _load(one: Package) -> tuple[package.Child, str]:
  """Returns the child of a package, and the digest of its weights."""
  directory = storage.path(one.path, _field(one))
  try:
    return package.load(directory), package.sha256(directory)
  except errors.UserError as error:
    allowed = f'a child package ({error})'
    raise errors.UserError(_field(one), one.path, allowed) from None
