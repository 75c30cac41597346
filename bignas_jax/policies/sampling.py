"""The policies by their names in configs."""

from collections.abc import Sequence
from typing import Annotated, Literal

from bignas_jax.policies import mdenas as mdenas_lib
from bignas_jax.policies import own
from bignas_jax.policies import parsec as parsec_lib
from bignas_jax.policies import rep_nas as rep_nas_lib
from bignas_jax.policies.attentive import Errors, attentive
from bignas_jax.policies.fixed import NamedArch, fixed
from bignas_jax.policies.policies import Policy
from bignas_jax.policies.progressive import Phase, progressive
from bignas_jax.policies.sandwich import (
  SmallestResolution,
  alone,
  sandwich,
  uniform,
)
from bignas_jax.spaces.space import Space
from bignas_jax.values import functions, schema

NAMES = (
  'sandwich',
  'best_up',
  'worst_up',
  'uniform',
  'progressive',
  'fixed',
  'mdenas',
  'rep_nas',
  'parsec',
  'alone',
)
# Which of its candidates an attentive policy trains.
_CHOICES: dict[str, Literal['best', 'worst']] = {
  'best_up': 'best',
  'worst_up': 'worst',
}
Name = Annotated[
  str,
  schema.Meta(
    pattern=f'^({"|".join(NAMES)}|{functions.PATTERN})$',
    description=', '.join((*NAMES, functions.FORM)),
  ),
]


def create(
  space: Space,
  name: Name,
  *,
  random_children: int = 2,
  smallest_resolution: SmallestResolution = 'smallest',
  candidates: int = 3,
  scored_by: Literal['loss', 'predictor'] = 'loss',
  predicted: Errors | None = None,
  children: Sequence[NamedArch] = (),
  phases: Sequence[Phase] = (),
  of_mdenas: mdenas_lib.Settings | None = None,
  of_rep_nas: rep_nas_lib.Settings | None = None,
  of_parsec: parsec_lib.Settings | None = None,
  images: int = 1,
) -> Policy:
  """Returns a policy for a space by its name in configs.

  Args:
    space: space that children are drawn from.
    name: `sandwich` (the biggest, the smallest and random children); `best_up`
      or `worst_up` (a sandwich whose random children have the lowest or the
      highest score of their candidates); `uniform` (random children only);
      `progressive` (random children of the choices of a phase); `fixed` (all of
      `children`); `mdenas` (one random child, of a learnt distribution);
      `rep_nas` (one child, of the parallel members of greatest logits);
      `parsec` (several, which are weighted by their likelihoods); `alone` (the
      biggest, which is all of a space of one network); or the name of one's
      own function, `package.module:function`, that returns a policy.
    random_children: number of random children in a step.
    smallest_resolution: resolution of the smallest child of a sandwich.
    candidates: number of candidates for each of them.
    scored_by: what candidates are compared by.
    predicted: predicts errors of candidates, as in `attentive`.
    children: the children of a `fixed` policy.
    phases: the phases of a `progressive` policy.
    of_mdenas: how the distribution of policy `mdenas` learns; None: as by
      default.
    of_rep_nas: how the logits of policy `rep_nas` learn; None: as by default.
    of_parsec: the same for policy `parsec`.
    images: number of images in a batch, for policy `parsec`.

  Raises:
    UserError: the policy cannot be one of this space.
  """
  if functions.is_name(name):
    return own.load(space, name)
  if name == 'alone':
    return alone(space)
  if name == 'sandwich':
    return sandwich(space, random_children, smallest_resolution)
  if name == 'uniform':
    return uniform(space, random_children)
  if name == 'fixed':
    return fixed(space, children)
  if name == 'progressive':
    return progressive(space, phases)
  if name == 'mdenas':
    return mdenas_lib.mdenas(space, of_mdenas or mdenas_lib.Settings())
  if name == 'rep_nas':
    return rep_nas_lib.rep_nas(space, of_rep_nas or rep_nas_lib.Settings())
  if name == 'parsec':
    settings = of_parsec or parsec_lib.Settings()
    return parsec_lib.parsec(space, settings, images)
  return attentive(
    space,
    _CHOICES[name],
    candidates,
    random_children,
    smallest_resolution,
    scored_by,
    predicted,
  )
