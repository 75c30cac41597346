"""Time of an elastic step against that of its children as static networks.

All variants are measured in one process and take turns, so that a disturbance
of the machine affects all of them.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bignas_jax.estimates import compiler_reports
from bignas_jax.methods import loss_graph, optim, programs
from bignas_jax.methods import step as step_lib
from bignas_jax.policies import sandwich
from bignas_jax.policies.policies import Child, Policy
from bignas_jax.spaces import arch, pinning
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import network
from bignas_jax.supernet.model import Model
from bignas_jax.system import console, xla
from bignas_jax.system import mesh as mesh_lib

# Of the steps that are timed: what `describe` makes updates of.
OPTIMIZER, RATE = optim.Optimizer(), 1e-3


def step(
  space: Space,
  *,
  batch: int,
  resolution: int,
  dtype: str,
  rounds: int,
  recompute: Sequence[bool] = (True, False),
  further: int = 20,
  seed: int = 0,
) -> dict[str, Any]:
  """Times one sandwich step: forward pass, backward pass and update.

  The step is one that is not logged.

  Args:
    space: space whose biggest, smallest and two random children are trained.
    batch: batch size, images.
    resolution: resolution of all children, pixels.
    dtype: dtype of activations.
    rounds: measurements of each variant, of which the median is reported.
    recompute: whether static children compute their blocks again in the
      backward pass; where both, the faster one counts.
    further: number of steps of other children, in which retraces are counted.
    seed: seed of the random children.

  Returns:
    A dict with `elastic_s`, seconds of the step; `compile_s`, seconds in which
    its programs were compiled, beside the static ones; `peak_bytes` of the
    largest program;
    `static_sum_s`, the sum over its children as plain static networks;
    `masked_s`, seconds of the step if each child costs as much as the biggest,
    as with masks at full size; `ratio` and `ratio_to_masked` of the elastic
    step; the numbers of `programs` and `retraces`; and, if `recompute` has
    False, `compiler`, the compiler's counts of what the step must compute
    (`_counted`).
  """
  space = dataclasses.replace(
    space, resolution=(resolution,), train_resolution=(resolution,)
  )
  setup = describe(space, batch, dtype, jax.devices()[:1])
  of_policy = setup.policy.init(seed)
  children = setup.policy.sample(of_policy, seed, 0, None)
  images = random_batch(setup)
  state = first_state(setup)
  params = jax.tree.map(jnp.copy, state.params)
  static = {
    f'static {i} {again}': _static(setup, child, params, again)
    for i, child in enumerate(children)
    for again in recompute
  }
  compiled, alone, compile_s = _compiled(setup, static, images)

  def train(children: list[Child]) -> Callable:
    def run():
      nonlocal state  # each step reuses its buffers (donation)
      state, measured = programs.step(
        setup, compiled, state, images, children, norms=False
      )
      return state, measured

    return run

  biggest = arch.biggest(space)
  full = [*children[:1], *(Child('random', biggest) for _ in children[1:])]
  variants = {'elastic': train(children), 'masked': train(full)}
  for name, (_, own) in static.items():
    variants[name] = functools.partial(alone[name], own, images)
  seconds = interleaved(variants, rounds)
  with xla.traces() as traces:
    for one in range(1, further + 1):
      train(setup.policy.sample(of_policy, seed, one, None))()
  fastest = [
    min(seconds[f'static {i} {again}'] for again in recompute)
    for i in range(len(children))
  ]
  counted = {}
  if False in recompute:
    counted['compiler'] = _counted(setup, children, compiled, alone)
  return {
    'device': jax.devices()[0].device_kind,
    'space': space.name,
    'batch': batch,
    'resolution': resolution,
    'dtype': dtype,
    'children': [
      {'role': c.role, 'static_s': s, 'arch': arch.to_dict(c.arch)}
      for c, s in zip(children, fastest, strict=True)
    ],
    'elastic_s': seconds['elastic'],
    'static_sum_s': sum(fastest),
    'ratio': seconds['elastic'] / sum(fastest),
    'masked_s': seconds['masked'],
    'ratio_to_masked': seconds['elastic'] / seconds['masked'],
    'compile_s': compile_s,
    'peak_bytes': max(map(xla.peak_bytes, compiled.values())),
    'programs': len(compiled),
    'retraces': len(traces),
    **counted,
  }


def _counted(
  setup: step_lib.Setup,
  children: Sequence[Child],
  compiled: dict[str, Any],
  alone: dict[str, Any],
) -> dict[str, dict[str, float]]:
  """Returns the compiler's counts of the children of a step, and of its update.

  The compiler counts a loop's body once, and programs of random children have
  loops: their static networks count in their place.

  Args:
    setup: setup of the step.
    children: children of the step.
    compiled: the programs of the step.
    alone: the static networks, of which those without recomputation count.
  """
  static = setup.policy.static
  others = {
    f'{child.role} {i}': alone[f'static {i} False']
    for i, child in enumerate(children)
    if child.role not in static
  }
  own = {name: compiled[name] for name in (*static, programs.UPDATE)}
  return compiler_reports.counted(own | others)


def _compiled(
  setup: step_lib.Setup, static: dict[str, tuple[Any, Any]], images
) -> tuple[dict[str, Any], dict[str, Any], float]:
  """Compiles a step and its children's networks, in parallel.

  Returns:
    The programs of the step and the networks, by name, and the seconds after
    which the programs were compiled.
  """
  ours = programs.lowering(programs.all_programs(setup))
  lower = ours | {
    name: functools.partial(run.lower, own, images)
    for name, (run, own) in static.items()
  }
  began, ended = time.perf_counter(), []

  def finish(name, lowered):
    compiled = lowered.compile()
    if name in ours:
      ended.append(time.perf_counter())
    return compiled

  both = xla.compile_all(lower, finish)
  compiled, alone = (
    {name: both[name] for name in names} for names in (ours, static)
  )
  return compiled, alone, max(ended) - began


def describe(
  space: Space,
  batch: int,
  dtype: str,
  devices: Sequence[Any],
  policy: Policy | None = None,
  rule: loss_graph.Rule | None = None,
) -> step_lib.Setup:
  """Returns the setup of a run on these devices, with a plain loss.

  Args:
    space: space of the children.
    batch: batch size, images.
    dtype: dtype of activations.
    devices: devices of the run.
    policy: policy of the run; None: the sandwich rule.
    rule: loss graph of the run; None: in-place distillation.
  """
  rate = lambda step: RATE  # noqa: E731
  return step_lib.Setup(
    model=Model(
      space=space,
      mesh=mesh_lib.create(devices),
      mean=(0.5,) * space.channels,
      std=(0.25,) * space.channels,
      dtype=jnp.dtype(dtype),
    ),
    rule=rule or loss_graph.Rule(),
    optimizer=optim.create(OPTIMIZER, rate),
    rate=rate,
    batch_size=batch,
    policy=policy or sandwich.sandwich(space),
  )


def first_state(setup: step_lib.Setup) -> step_lib.State:
  """Returns the state of step 0, replicated on the run's devices."""
  init = jax.jit(step_lib.init_state(setup))
  return mesh_lib.put(setup.model.mesh, init(), mesh_lib.REPLICATED)


def random_batch(setup: step_lib.Setup) -> dict[str, jax.Array]:
  """Returns random images and labels, split over the run's devices."""
  size, space = setup.model.image_size, setup.model.space
  rng = np.random.default_rng(0)
  shape = (setup.batch_size, size, size, space.channels)
  batch = {
    'image': rng.integers(0, 256, shape, np.uint8),
    'label': rng.integers(0, space.classes, shape[0]).astype(np.int32),
  }
  mesh = setup.model.mesh
  return mesh_lib.put(mesh, batch, mesh_lib.split(mesh))


def _static(setup, child: Child, params, recompute: bool) -> tuple[Any, Any]:
  """Returns the gradient of a plain network of the child's own size.

  Returns:
    A jitted function of parameters and a batch, and the child's parameters.
  """
  space = pinning.pin(setup.model.space, child.arch)
  net = network.Supernet(space, setup.model.dtype, recompute=recompute)
  own = network.slice_child(setup.model.space, {'params': params}, child.arch)[
    'params'
  ]

  def loss(params, batch):
    logits: Any = net.apply(
      {'params': params},
      setup.model.images(batch['image'], child.arch.resolution),
    )
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, batch['label']
    ).mean()

  options = xla.compiler_options(mesh_lib.platform(setup.model.mesh))
  return jax.jit(jax.grad(loss), compiler_options=options), own


def interleaved(variants: dict[str, Callable], rounds: int) -> dict[str, float]:
  """Returns the median seconds of each variant, after one unmeasured round."""
  seconds: dict[str, list[float]] = {name: [] for name in variants}
  for number in range(rounds + 1):
    for name, run in variants.items():
      began = time.perf_counter()
      jax.block_until_ready(run())
      if number > 0:
        seconds[name].append(time.perf_counter() - began)
    console.say(f'round {number} of {rounds}')
  return {name: statistics.median(values) for name, values in seconds.items()}
