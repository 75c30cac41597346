"""Time of a step of one random child against that of the child alone.

It is for spaces whose layers choose one of several operations: a step trains
one path through them. All variants are measured in one process and take turns.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax

from bignas_jax.methods import loss_graph, optim, programs
from bignas_jax.methods import step as step_lib
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.perf import step_time
from bignas_jax.policies import sandwich
from bignas_jax.policies.policies import Child
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.system import console, xla
from bignas_jax.system import mesh as mesh_lib


def path(
  space: Space,
  *,
  batch: int,
  resolution: int,
  dtype: str,
  rounds: int,
  paths: int,
  optimizer: Literal['rmsprop', 'sgd'] = 'rmsprop',
  steps: int = 200,
  seed: int = 0,
) -> dict[str, Any]:
  """Times steps of random paths, with the update of all parameters.

  Args:
    space: space that paths are drawn from, as policy `uniform` draws them.
    batch: batch size, images.
    resolution: resolution of all paths, pixels.
    dtype: dtype of activations.
    rounds: measurements of each variant, of which the median is reported.
    paths: number of random paths that are timed, and compiled alone.
    optimizer: `name` of the optimizer, `rmsprop` or `sgd`.
    steps: number of other random paths, in whose steps retraces are counted.
    seed: seed of the paths.

  Returns:
    A dict with `elastic_s`, the sum over the paths of the seconds of a step of
    the space; `static_s`, the same of the paths alone, which keep their
    residuals, as networks alone do; their `ratio`; `gradient`, the same three
    without the update; and the numbers of `programs` and `retraces`.
  """
  space = dataclasses.replace(
    space, resolution=(resolution,), train_resolution=(resolution,)
  )
  policy = sandwich.uniform(space)
  devices = jax.devices()[:1]
  setup = step_time.describe(
    *(space, batch, dtype, devices), policy, _rule('random')
  )
  update = optim.create(optim.Optimizer(name=optimizer), setup.rate)
  setup = dataclasses.replace(setup, optimizer=update)
  images = step_time.random_batch(setup)
  elastic = _Steps(setup, images)

  def drawn(number: int) -> Arch:
    (child,) = policy.sample({}, seed, number, None)
    return child.arch

  archs = [drawn(number) for number in range(paths)]
  variants: dict[str, Callable] = {}
  for i, arch in enumerate(archs):
    variants |= elastic.variants(f'{i} elastic', Child('random', arch))
    console.say(f'compiling path {i + 1} of {paths} alone')
    alone = _alone(setup, arch)
    child = Child('biggest', arch_lib.biggest(alone.model.space))
    variants |= _Steps(alone, images).variants(f'{i} static', child)
  seconds = step_time.interleaved(variants, rounds)
  with xla.traces() as traces:
    for number in range(paths, paths + steps):
      elastic.step(Child('random', drawn(number)))
  whole, gradient = (
    [_compared(seconds, i, what) for i in range(paths)]
    for what in ('step', 'gradient')
  )
  return {
    'device': jax.devices()[0].device_kind,
    'space': space.name,
    'batch': batch,
    'resolution': resolution,
    'dtype': dtype,
    'optimizer': optimizer,
    'paths': [
      one | {'arch': arch_lib.to_dict(arch)}
      for one, arch in zip(whole, archs, strict=True)
    ],
    **_summed(whole),
    'gradient': _summed(gradient),
    'programs': len(elastic.compiled),
    'retraces': len(traces),
  }


class _Steps:
  """Compiled steps of one setup, and the state that they change.

  Args:
    setup: setup of the steps.
    images: batch of all steps.
  """

  def __init__(self, setup: step_lib.Setup, images: step_lib.Tree):
    self._setup, self._images = setup, images
    self.compiled = programs.compile_all(programs.all_programs(setup))
    self._state = step_time.first_state(setup)

  def step(self, child: Child) -> Any:
    """Runs a step that is not logged, of one child; returns its results."""
    self._state, measured = programs.step(
      *(self._setup, self.compiled, self._state, self._images, [child]),
      norms=False,
    )
    return self._state, measured

  def gradient(self, child: Child) -> Any:
    """Returns the gradient of one child as a step computes it."""
    setup, start, indices = self._setup, self.compiled.get('start'), None
    if child.role not in setup.policy.static:
      indices = arch_lib.encode(setup.model.space, child.arch)
      indices = mesh_lib.put(setup.model.mesh, indices, mesh_lib.REPLICATED)
    return self.compiled[programs.key(setup, child)](
      *(self._state.params, self._state.step, self._images, indices),
      *(start() if start else None, {}),
    )

  def variants(self, name: str, child: Child) -> dict[str, Callable]:
    """Returns what is timed of a child, by name."""
    return {
      f'{name} step': lambda: self.step(child),
      f'{name} gradient': lambda: self.gradient(child),
    }


def _alone(setup: step_lib.Setup, arch: Arch) -> step_lib.Setup:
  """Returns the setup of a path's network alone, trained like the path."""
  model = setup.model
  own = pinning.pin(model.space, arch)
  return dataclasses.replace(
    setup,
    model=dataclasses.replace(model, space=own),
    policy=sandwich.alone(own),
    rule=_rule('biggest'),
  )


def _rule(role: str) -> Rule:
  """Returns the rule by which children of a role learn from the label alone."""
  plain = Rule(dropout=0.0, weight_decay=0.0, label_smoothing=0.0)
  return loss_graph.alone(plain, role)


def _compared(
  seconds: dict[str, float], number: int, what: str
) -> dict[str, float]:
  """Returns seconds of a path in the space and alone, and their ratio."""
  names = (f'{number} {how} {what}' for how in ('elastic', 'static'))
  return _ratio(*(seconds[name] for name in names))


def _summed(rows: list[dict[str, float]]) -> dict[str, float]:
  sums = (sum(row[name] for row in rows) for name in ('elastic_s', 'static_s'))
  return _ratio(*sums)


def _ratio(elastic_s: float, static_s: float) -> dict[str, float]:
  ratio = elastic_s / static_s
  return {'elastic_s': elastic_s, 'static_s': static_s, 'ratio': ratio}
