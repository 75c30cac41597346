"""The policy of a list of children, all of which every step trains."""

import dataclasses
from collections.abc import Sequence

from bignas_jax.policies import policies
from bignas_jax.policies.policies import Child, Policy, Score, State
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import presets
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.values import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedArch:
  """A child in a config.

  Attributes:
    role: name of the child in the loss graph and in metrics.
    arch: its architecture, as `presets.parse` reads it: `biggest`, a preset,
      JSON, or a file.
  """

  role: str
  arch: str


def fixed(space: Space, children: Sequence[NamedArch]) -> Policy:
  """Returns the policy whose steps train these children, in their order.

  Slimmable networks (ICLR 2019) train a list of widths so, and RS-Net (ECCV
  2020) a list of resolutions.

  Raises:
    UserError: there is no child; a role is no name, or another child's; or an
      architecture is not of the space.
  """
  if not children:
    raise errors.UserError('children', (), 'at least one, for policy fixed')
  static: dict[str, Arch] = {}
  for i, one in enumerate(children):
    field = f'children[{i}].role'
    if not policies.is_role(one.role):
      raise errors.UserError(field, one.role, policies.ALLOWED)
    if one.role in static:
      raise errors.UserError(field, one.role, 'a name that no other child has')
    static[one.role] = _parsed(space, i, one)
  listed = [Child(role, arch) for role, arch in static.items()]

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    del state, seed, draw, score
    return list(listed)

  return Policy(tuple(static), static, sample)


def resolved(
  space: Space, children: Sequence[NamedArch]
) -> tuple[NamedArch, ...]:
  """Returns the children with their architectures as JSON, free of files.

  Raises:
    UserError: an architecture is not of the space.
  """
  return tuple(
    dataclasses.replace(one, arch=arch_lib.to_json(_parsed(space, i, one)))
    for i, one in enumerate(children)
  )


def _parsed(space: Space, number: int, one: NamedArch) -> Arch:
  with errors.within(f'children[{number}]'):
    return presets.parse(space, one.arch)
