"""The child packages that teach a run (`loss_graph.Package`)."""

import dataclasses

from bignas_jax.deploy import package
from bignas_jax.methods.loss_graph import Package, Rule
from bignas_jax.methods.teachers import Network
from bignas_jax.supernet.model import Model
from bignas_jax.system import storage
from bignas_jax.values import errors


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
