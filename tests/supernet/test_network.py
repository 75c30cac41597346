"""The law of the supernet: elastic = sliced child = plain reference.

One elastic program a space and resolution is held against `reference.child`,
which shares no code with it: in value, in gradient by all parameters, in batch
moments, for many architectures. `mnist` runs in float32, as it trains; the
rules of the two big spaces run in float64 on networks of two stages.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import reference

from bignas_jax.costs import counting
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, zoo
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import (
  batch_norm,
  derived,
  network,
  parameters,
  stage_blocks,
)
from bignas_jax.system import mesh as mesh_lib

MNIST = zoo.MNIST

# The programs.


def differentiated(space, dtype):
  """(params, images, weights, indices) -> (logits, collections), gradient."""
  net = network.Supernet(derived.plain(space), dtype)

  def loss(params, images, weights, indices):
    logits, found = net.apply(
      {'params': network.resolve(space, params, indices)},
      images,
      indices,
      capture_intermediates=True,
      mutable=['moments', 'intermediates'],
    )
    return (logits * weights).sum(), (logits, found)

  def run(params, images, weights, indices=None):
    grad = jax.value_and_grad(loss, has_aux=True)
    (_, out), grads = grad(params, images, weights, indices)
    return out, grads

  return jax.jit(run)


def sliced(space, arch, dtype):
  """The same of a child on its own, by the supernet's parameters."""
  net = network.Supernet(pinning.pin(space, arch), dtype)

  def loss(params, images, weights):
    own = network.slice_child(space, {'params': params}, arch)
    logits = net.apply(own, images)
    return (logits * weights).sum(), logits

  def run(params, images, weights):
    grad = jax.value_and_grad(loss, has_aux=True)
    (_, logits), grads = grad(params, images, weights)
    return logits, grads

  return jax.jit(run)


# The law. `Case` is one elastic program with the numbers that it is fed.


@dataclasses.dataclass
class Case:
  space: Space
  resolution: int
  dtype: str
  tolerance: float

  def __post_init__(self):
    self.params = networks.random_params(self.space)
    numbers = networks.random_images(self.space, self.resolution)
    self.images, self.weights = numbers
    self.program = differentiated(self.space, self.dtype)
    self.cast = functools.partial(networks.cast, dtype=self.dtype)

  def inputs(self):
    return self.cast((self.params, self.images, self.weights))

  def run(self, arch):
    indices = arch_lib.encode(self.space, arch)
    return self.program(*self.inputs(), indices)

  def loss(self, arch, params):
    logits, _ = reference.child(self.space, arch, params, self.images)
    return (logits * self.weights).sum()


def check_child(case, arch):
  """Logits, moments, zeros past the active channels; what has a gradient."""
  space, params = case.space, case.params
  (logits, found), grads = case.run(arch)
  expected, moments = reference.child(space, arch, params, case.images)
  networks.assert_close(logits, expected, case.tolerance)

  for name, seen in moments.items():
    part, *place = name.split('.')
    ours = found['moments'][part]
    if place == ['0'] and 'first' in ours:
      ours = ours['first']
    elif place:
      number = int(place[0]) - ('first' in ours)
      ours = jax.tree.map(lambda a, n=number: a[n], ours['rest'])
    others = {n: tree for n, tree in ours.items() if n not in seen}
    assert not any(a.any() for a in leaves(others)), name
    ours = {n: tree for n, tree in ours.items() if n in seen}
    if not leaves(seen):
      continue
    shorter = jax.tree.map(lambda a, b: a[: len(b)], ours, seen)
    networks.assert_close(shorter, seen, case.tolerance)
    past = jax.tree.map(lambda a, b: a[len(b) :], ours, seen)
    assert not any(a.any() for a in leaves(past)), name
  for i, depth in enumerate(arch.depth):  # blocks that were skipped
    inside = found['moments'][f'stage{i + 1}']
    past = depth - ('first' in inside)
    for a in leaves(inside.get('rest', {})):
      assert not np.asarray(a)[past:].any()

  parts = ['stem', *(f'stage{i + 1}' for i in range(len(arch.depth)))]
  parts += ['head'] if space.head_width else []
  for part, width in zip(parts, arch.width, strict=True):
    x = np.asarray(found['intermediates'][part]['__call__'][0])
    assert (x[..., :width] != 0).any(), part
    assert not x[..., width:].any(), part

  # The gradient has no more entries than the child has parameters, and the
  # reference reads no others: what has none may change. (A bias that the next
  # batch norm removes has none either, nor has a unit that a ReLU cuts off;
  # by so little none comes to life.)
  nonzero = sum(np.count_nonzero(g) for g in leaves(grads))
  if derived.is_plain(space) and not arch.parallel:  # counted as folded
    assert nonzero <= counting.cost(space, arch).params
  other = jax.tree.map(
    lambda p, g: np.where(np.asarray(g) == 0, p + 1e-9, p), params, grads
  )
  again, _ = reference.child(space, arch, other, case.images)
  networks.assert_close(again, expected, 1e-13)


def check_slope(case, arch):
  """The gradient along a random direction, against finite differences.

  Each array has an equal share in the direction's slope, so that one that is
  wrong by a few parts in a hundred shows.
  """
  _, grads = case.run(arch)
  rng = np.random.default_rng(3)
  sizes = [np.linalg.norm(np.asarray(g)) for g in leaves(grads)]
  direction = jax.tree.map(
    lambda g: (
      rng.normal(size=g.shape)
      / max(np.linalg.norm(np.asarray(g)), 1e-3 * max(sizes))
    ),
    grads,
  )
  step = 1e-7 / max(abs(leaf).max() for leaf in leaves(direction))
  ahead, behind = (
    case.loss(
      arch, jax.tree.map(lambda p, v, s=sign: p + s * v, case.params, direction)
    )
    for sign in (step, -step)
  )
  slopes = jax.tree.map(
    lambda g, v: (np.asarray(g, np.float64) * v).sum(), grads, direction
  )
  found = sum(leaves(slopes))
  error = abs(found - (ahead - behind) / (2 * step))
  # The difference of two losses is rounded in proportion to them.
  most = max(100 * case.tolerance, 1e-5) * max(1, abs(found))
  assert error < most, (found, error)


def leaves(tree):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def check_gradient(case, arch):
  """Every entry of the gradient."""
  _, grads = case.run(arch)
  loss = functools.partial(case.loss, arch)
  _, expected = reference.gradient(loss, case.params)
  networks.assert_close(grads, expected, case.tolerance)


def check_sliced(case, arch):
  """The child on its own; around the slice, both gradients are exactly 0."""
  (logits, _), grads = case.run(arch)
  program = sliced(case.space, arch, case.dtype)
  alone, alone_grads = program(*case.inputs())
  networks.assert_close(alone, logits, case.tolerance)
  networks.assert_close(alone_grads, grads, case.tolerance)
  if not derived.is_plain(case.space):
    return
  cut = lambda params: network.slice_child(  # noqa: E731
    case.space, {'params': params}, arch
  )
  own, uncut = jax.vjp(cut, case.cast(case.params))
  inside = leaves(uncut(jax.tree.map(jnp.ones_like, own))[0])
  for gradient in (grads, alone_grads):
    for g, own in zip(leaves(gradient), inside, strict=True):
      assert not g[own == 0].any()


# mnist in float32, slowly: compiling a program takes as long as all of its
# children, and the rules below are those of the big spaces in float64.

CHILDREN = networks.archs_of(MNIST, 50)
assert {arch.resolution for arch in CHILDREN} == set(MNIST.resolution)


@pytest.fixture(scope='module', params=MNIST.resolution)
def mnist(request):
  return Case(MNIST, request.param, 'float32', 1e-4)


@pytest.mark.slow
def test_mnist_children_are_the_references(mnist):
  size = mnist.resolution
  extremes = [
    dataclasses.replace(f(MNIST), resolution=size)
    for f in (arch_lib.smallest, arch_lib.biggest)
  ]
  children = [arch for arch in CHILDREN if arch.resolution == size]
  for arch in [*extremes, *children]:
    check_child(mnist, arch)
    check_gradient(mnist, arch)
  # All of these children were one program.
  assert mnist.program._cache_size() == 1
  if size == MNIST.resolution[0]:  # compiled for this child alone
    check_sliced(mnist, min(children, key=lambda arch: sum(arch.depth)))


# The rules of the big spaces in float64.

SPACES = networks.LITTLE | {
  space.name: space for space in (networks.ONE_OF, networks.PARALLEL)
}


@functools.cache
def case_of(name):
  return Case(SPACES[name], 18, 'float64', 1e-10)


@pytest.fixture(params=SPACES)
def little(request):
  with jax.enable_x64(True):
    yield case_of(request.param)


def test_rules_of_the_big_spaces(little):
  for arch in networks.archs_of(little.space, 5):
    check_child(little, arch)
    check_slope(little, arch)
  assert little.program._cache_size() == 1


def test_gradients_of_the_big_spaces(little):
  # One with a second block, smaller than the biggest.
  high = arch_lib.biggest(little.space)
  arch = next(
    arch
    for arch in networks.archs_of(little.space, 50, 10)
    if max(arch.depth) == 2
    and (arch.width, arch.expand_ratio, arch.parallel)
    != (high.width, high.expand_ratio, high.parallel)
  )
  check_gradient(little, arch)
  check_sliced(little, arch)


def test_squeeze_excite_of_each_block():
  """A choice of each block, in a loop over blocks; little_bignas has none."""
  stage = dataclasses.replace(networks.BIGNAS.stages[1], kernel_size=(3,))
  space = dataclasses.replace(
    networks.BIGNAS,
    stages=(dataclasses.replace(stage, width=(16,), depth=(1, 2, 3)),),
    per_block=True,
  )
  archs = [arch_lib.biggest(space)]
  archs += [dataclasses.replace(archs[0], squeeze_excite=(1, 0, 1))]
  archs += [
    dataclasses.replace(arch_lib.smallest(space), squeeze_excite=(1, 0, 0))
  ]
  with jax.enable_x64(True):
    case = Case(space, 18, 'float64', 1e-10)
    for arch in archs:
      check_child(case, arch)
      check_gradient(case, arch)
    check_sliced(case, archs[1])
    assert case.program._cache_size() == 1


@pytest.mark.slow
@pytest.mark.parametrize('space', [zoo.BIGNAS, zoo.ATTENTIVE_NAS])
def test_the_big_spaces_themselves(space):
  """20 random children of each, at 64 pixels: most of it is compiling."""
  space = dataclasses.replace(space, resolution=(64,), train_resolution=(64,))
  with jax.enable_x64(True):
    case = Case(space, 64, 'float64', 1e-10)
    for arch in networks.archs_of(space, 20):
      check_child(case, arch)
      check_slope(case, arch)
      check_sliced(case, arch)
    assert case.program._cache_size() == 1


def test_given_statistics(little):
  """Evaluation: elastic, sliced and reference, with a child's statistics."""
  space = little.space
  variables = {
    'params': little.params,
    'batch_stats': networks.random_stats(space),
  }
  net = network.Supernet(derived.plain(space), 'float64')

  @jax.jit
  def program(variables, images, indices):
    own = network.resolve(space, variables['params'], indices)
    return net.apply(variables | {'params': own}, images, indices)

  images = little.cast(little.images)
  for arch in networks.archs_of(space, 8):
    found = program(
      little.cast(variables), images, arch_lib.encode(space, arch)
    )
    expected, _ = reference.child(
      space, arch, little.params, little.images, variables['batch_stats']
    )
    networks.assert_close(found, expected, little.tolerance)
  child = network.Supernet(pinning.pin(space, arch), 'float64')
  own = network.slice_child(space, little.cast(variables), arch)
  alone = jax.jit(child.apply)(own, images)
  networks.assert_close(alone, expected, little.tolerance)


def test_zero_scale_initialisation(little):
  """At the start each block is its shortcut, whatever else is in it."""
  space = little.space
  if space.name not in ('little_bignas', 'little_attentive_nas'):
    pytest.skip('some blocks have no shortcut, or other names inside')
  params = jax.jit(lambda key: network.init(space, key))(jax.random.key(0))
  chex.assert_trees_all_equal_shapes(params, network.shapes(space))
  params = jax.tree.map(np.asarray, params)
  rng = np.random.default_rng(5)

  def noisy(path, leaf, chosen):
    names = [key.key for key in path]
    return leaf + rng.normal(size=leaf.shape) * chosen(names)

  def inside(names):
    """Parts of a block's branch, up to and without its last batch norm."""
    in_block = names[0].startswith('stage')
    return in_block and names[2] not in ('project_bn', 'shortcut')

  def shortcut(names):
    return 'shortcut' in names

  perturb = jax.tree_util.tree_map_with_path
  other = perturb(functools.partial(noisy, chosen=inside), params)
  moved = perturb(functools.partial(noisy, chosen=shortcut), params)
  assert any(inside([k.key for k in p]) for p, _ in flat(params))
  low = arch_lib.smallest(space)
  # Every stage changes the width, so every stage has a shortcut convolution.
  high = arch_lib.biggest(space)
  high = dataclasses.replace(high, width=(8, 16, *high.width[2:]))
  for arch in (low, high):
    indices = arch_lib.encode(space, arch)
    _, images, weights = little.inputs()
    (logits, _), grads = little.program(params, images, weights, indices)
    (same, _), _ = little.program(other, images, weights, indices)
    np.testing.assert_array_equal(same, logits)
    assert abs(np.asarray(logits)).max() > 1e-3
    # The scale can leave 0; nothing before it moves until then.
    for path, grad in flat(grads):
      names = [key.key for key in path]
      if inside(names):
        assert not np.asarray(grad).any(), names
      elif names[2:] == ['project_bn', 'scale'] and names[1] == 'first':
        assert np.asarray(grad).any(), names
  (different, _), _ = little.program(moved, images, weights, indices)
  assert abs(np.asarray(different - logits)).max() > 1e-3


def flat(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


def test_he_initialisation():
  """Fan-out of what a kernel entry reaches: k x k for a depthwise one."""
  stage = dataclasses.replace(
    zoo.ATTENTIVE_NAS.stages[4], width=(64,), kernel_size=(3, 5)
  )
  block = stage_blocks.Block(
    stage,
    width_in=(48,),
    first=True,
    changes_width=True,
    padding='same',
    bn_epsilon=1e-3,
    pooling=batch_norm.Pooling(),
  )
  params = jax.jit(lambda key: parameters.init(key, block))(jax.random.key(1))
  fan_out = {'expand': 288, 'depthwise': 25, 'project': 64, 'shortcut': 64}
  for name, fan in fan_out.items():
    kernel = np.asarray(params[name]['kernel'])
    assert kernel.std() == pytest.approx(np.sqrt(2 / fan), rel=0.06), name
    assert abs(kernel.mean()) < 0.1 * kernel.std()
  # A weak type would become a strong one at the first update, and every
  # program would be compiled a second time.
  assert not any(leaf.aval.weak_type for leaf in jax.tree.leaves(params))
  scales = {k: v['scale'] for k, v in params.items() if k.endswith('_bn')}
  for name, scale in scales.items():
    np.testing.assert_array_equal(scale, 0.0 if name == 'project_bn' else 1.0)
  assert not any(np.any(v['bias']) for k, v in params.items() if '_bn' in k)


# Statistics over groups of images, over devices; other types; dropout.


@pytest.fixture(scope='module')
def forward():
  """Builds forward programs of one stage of the little space; float32."""
  stages = (dataclasses.replace(networks.BIGNAS.stages[1], kernel_size=(3,)),)
  space = dataclasses.replace(networks.BIGNAS, stages=stages)
  params = networks.cast(networks.random_params(space), 'float32')

  def build(pooling=batch_norm.Pooling(), dtype='float32'):  # noqa: B008
    net = network.Supernet(space, dtype, pooling)

    def run(images, indices, params=params):
      return net.apply({'params': params}, images, indices, mutable=['moments'])

    return run

  return space, build


@pytest.mark.parametrize('group', [None, 2])
def test_batch_statistics(forward, group):
  """One device's groups, several devices', and each group by itself."""
  space, build = forward
  images = networks.cast(networks.random_images(space, 18, 4)[0], 'float32')
  arch = networks.archs_of(space, 1, 7)[0]
  indices = arch_lib.encode(space, arch)
  logits, found = jax.jit(build(batch_norm.Pooling(group_size=group)))(
    images, indices
  )

  params = networks.random_params(space)
  numbers = np.asarray(images, np.float64)
  groups = [numbers] if group is None else [numbers[:2], numbers[2:]]
  expected = [reference.child(space, arch, params, g)[0] for g in groups]
  networks.assert_close(logits, np.concatenate(expected), 1e-4)

  mesh = mesh_lib.create(jax.devices()[:4])
  split, whole = mesh_lib.split(mesh), mesh_lib.REPLICATED
  on_each = build(batch_norm.Pooling(mesh.axis_names, group))
  mapped = mesh_lib.per_device(mesh, (split, whole), (split, whole))(on_each)
  spread, spread_found = jax.jit(mapped)(images, indices)
  networks.assert_close(spread, logits, 1e-4)
  networks.assert_close(spread_found, found, 1e-4)


def test_bfloat16(forward):
  """Activations only: parameters, gradients, moments, logits are float32."""
  space, build = forward
  arch = networks.archs_of(space, 1, 8)[0]
  indices = arch_lib.encode(space, arch)
  images = networks.random_images(space, 18)[0]
  run = build(dtype='bfloat16')
  logits, found = jax.jit(run)(networks.cast(images, 'float32'), indices)
  assert logits.dtype == jnp.float32
  assert {a.dtype for a in leaves(found)} == {np.dtype('float32')}
  expected, _ = reference.child(
    space, arch, networks.random_params(space), images
  )
  networks.assert_close(logits, expected, 0.1)
  # It is not float32 after all.
  assert abs(np.asarray(logits) - expected).max() > 1e-4

  params = jax.eval_shape(lambda: network.init(space, jax.random.key(0)))
  assert {a.dtype for a in jax.tree.leaves(params)} == {np.dtype('float32')}
  grads = jax.eval_shape(
    jax.grad(lambda p: run(images, indices, params=p)[0].sum()), params
  )
  chex.assert_trees_all_equal_shapes_and_dtypes(grads, params)


def test_dropout():
  """Before the classifier; the same key loses the same features."""
  (arch,) = networks.archs_of(networks.BIGNAS, 1, 9)
  pinned = pinning.pin(networks.BIGNAS, arch)
  net = network.Supernet(pinned)
  params = networks.cast(networks.random_params(networks.BIGNAS), 'float32')
  variables = network.slice_child(networks.BIGNAS, {'params': params}, arch)
  stats = network.stats_shapes(pinned)
  variables['batch_stats'] = jax.tree.map(jnp.ones_like, stats)
  one = networks.cast(
    networks.random_images(networks.BIGNAS, 18, 1)[0], 'float32'
  )
  images = jnp.concatenate([one] * 3)

  @jax.jit
  def run(keys):
    return [
      net.apply(variables, images, dropout_rate=rate, dropout_keys=keys)
      for rate in (0.5, 0.0)
    ]

  keys = jax.random.split(jax.random.key(0), 3)
  keys = keys[jnp.array([0, 1, 0])]
  dropped, plain = map(np.asarray, run(keys))
  np.testing.assert_allclose(dropped[0], dropped[2], rtol=1e-4)
  assert abs(dropped[0] - dropped[1]).max() > 1e-2
  assert abs(dropped - plain).max(1).min() > 1e-2
  np.testing.assert_allclose(plain[1:], plain[:2], rtol=1e-4)
  np.testing.assert_array_equal(run(keys)[0], dropped)
  other = run(jax.random.split(jax.random.key(1), 3))[0]
  assert abs(np.asarray(other) - dropped).max(1).min() > 1e-2


# Children as packages of their own.


def test_a_child_has_nothing_of_the_supernet_left():
  arch = arch_lib.smallest(MNIST)
  variables = {
    'params': networks.random_params(MNIST),
    'batch_stats': networks.random_stats(MNIST),
  }
  own = network.slice_child(MNIST, variables, arch)
  pinned = pinning.pin(MNIST, arch)
  chex.assert_trees_all_equal_shapes(own, network.variables_shapes(pinned))
  assert 'rest' not in own['params']['stage1']


def test_a_supernet_must_be_told_which_child():
  images = np.zeros((1, 24, 24, 1), np.float32)
  with pytest.raises(AssertionError, match='which child'):
    jax.eval_shape(
      network.Supernet(MNIST).apply,
      {'params': network.shapes(MNIST)},
      images,
    )
