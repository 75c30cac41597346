"""A policy that a function of a user's own module returns, checked."""

from bignas_jax.policies import policies
from bignas_jax.policies.policies import Child, Policy, Score, State
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.space import Space
from bignas_jax.values import errors, functions

_FIELD = 'policy'


def load(space: Space, name: str) -> Policy:
  """Returns the policy of a user's function, with a check of what it samples.

  Args:
    space: space that children are drawn from.
    name: name of the function, such as `package.module:function`.

  Raises:
    UserError: there is no such function, it returns no policy, or the policy's
      roles or the children of its first step are wrong.
  """
  policy = functions.load(_FIELD, name, (Space,), Policy)(space)
  if not isinstance(policy, Policy):
    raise errors.UserError(f'{_FIELD} {name}', policy, 'a Policy')
  _check_roles(policy, name)
  for role, arch in policy.static.items():
    with errors.within(f'{_FIELD} {name}: static {role}'):
      arch_lib.check(space, arch)

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    children = policy.sample(state, seed, draw, score)
    _check_children(space, policy, children, f'{_FIELD} {name}: draw {draw}')
    return children

  checked = policy._replace(sample=sample)
  state = policy.init(0)
  first = sample(state, 0, 0)
  if sample(state, 0, 0) != first:
    allowed = 'the same children for the same state, seed and draw, so that a'
    allowed += ' run can be resumed (draw with arch.generator(seed, draw))'
    raise errors.UserError(f'{_FIELD} {name}', 'others', allowed)
  return checked


def _check_roles(policy: Policy, name: str) -> None:
  """Raises UserError if a policy has no role, or one of a wrong name."""
  field = f'{_FIELD} {name}: roles'
  roles = policy.roles
  if not isinstance(roles, tuple) or not roles:
    raise errors.UserError(field, roles, 'a tuple of at least one role')
  for role in roles:
    if not isinstance(role, str) or not policies.is_role(role):
      raise errors.UserError(field, role, policies.ALLOWED)
  for role in policy.static:
    if roles.count(role) != 1:
      allowed = 'a role that a step has once'
      raise errors.UserError(f'{_FIELD} {name}: static', role, allowed)


def _check_children(
  space: Space, policy: Policy, children: list[Child], field: str
) -> None:
  """Raises UserError if a step cannot train these children."""
  for child in children:
    with errors.within(f'{field}: {child.role}'):
      arch_lib.check(space, child.arch)
      size, sizes = child.arch.resolution, space.train_resolution
      if size not in sizes:
        allowed = errors.one_of(map(str, sizes)) + ', of space.train_resolution'
        raise errors.UserError('arch.resolution', size, allowed)
  if not policies.is_of(policy, children):
    got = [child.role for child in children]
    allowed = f'children of the roles {list(policy.roles)}, in this order; a'
    allowed += ' static role has its own child, and weights are 1 unless weighs'
    raise errors.UserError(field, got, allowed)
