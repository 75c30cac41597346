"""Blocks chosen as a program runs, against plain ones."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bignas_jax.supernet import branches as branches_lib
from bignas_jax.supernet import recomputation
from bignas_jax.supernet.accumulator import Accumulator
from bignas_jax.supernet.branches import Branch

SIZES = 2, 4, 6
STACK = 3
X, CONSTANT = jnp.linspace(-0.5, 1.0, 5), {'c': jnp.float32(0.5)}
DY = jnp.linspace(2.0, 3.0, 5)


def compute(params, x, constants, known, turn):
  """As many hidden numbers as there are parameters."""
  del turn
  hidden = jnp.tanh(x.sum() * params['w']) if known is None else known['h']
  y = x * (1 + params['w'].sum()) + jnp.tanh(x.sum() * params['w']).sum()
  return y * constants['c'], {'h': hidden}


def branch(size):
  shape = jax.ShapeDtypeStruct((size,), jnp.float32)
  return Branch({'w': shape}, compute)


BRANCHES = [branch(size) for size in SIZES]
PARAMS = {
  'w': jnp.linspace(0.1, 0.9, STACK * 6).reshape(STACK, 6),
  'unused': jnp.ones((STACK, 2)),
}
SUMS = jax.tree.map(lambda p: 10 + jnp.arange(p.size).reshape(p.shape), PARAMS)
SUMS = jax.tree.map(jnp.float32, SUMS)


def first_of(tree):
  return jax.tree.map(lambda leaf: leaf[0], tree)


def both_ways(function, params, sums):
  """Results, and cotangents of parameters, probe and input."""

  def run(params, probe, x):
    y, seen, accumulator = function(Accumulator(params, probe), x)
    return (y, accumulator), seen

  (y, _), back, seen = jax.vjp(run, params, jnp.float32(0), X, has_aux=True)
  return y, seen, *back((DY, Accumulator(sums, jnp.float32(7))))


def plain(size, turns, params, x):
  seen = []
  for turn in range(turns):
    own = {'w': params['w'][turn, :size]}
    x, one = compute(own, x, CONSTANT, None, None)
    seen.append(one['h'])
  return x, seen


def assert_is_plain(found, size, turns, params, sums):
  y, seen, added, square, dx = found
  wanted, back = jax.vjp(lambda p, x: plain(size, turns, p, x)[0], params, X)
  gradient, wanted_dx = back(DY)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
  close(y, wanted)
  close(dx, wanted_dx)
  jax.tree.map(close, added, jax.tree.map(jnp.add, sums, gradient))
  close(square, 7 + (gradient['w'] ** 2).sum())
  hidden = np.zeros_like(params['w'])
  for turn, one in enumerate(plain(size, turns, params, X)[1]):
    hidden[turn, :size] = one
  close(seen['h'], hidden.reshape(seen['h'].shape))


@pytest.mark.parametrize('chosen', range(len(SIZES)))
def test_a_switch_is_the_chosen_branch(chosen):
  run = jax.jit(
    lambda chosen: both_ways(
      lambda accumulator, x: branches_lib.switch(
        chosen, BRANCHES, accumulator, x, CONSTANT
      ),
      first_of(PARAMS),
      first_of(SUMS),
    )
  )
  found = run(jnp.int32(chosen))
  y, seen, added, *rest = found
  stacked = {name: leaf[None] for name, leaf in added.items()}
  params, sums = ({k: v[:1] for k, v in t.items()} for t in (PARAMS, SUMS))
  assert_is_plain((y, seen, stacked, *rest), SIZES[chosen], 1, params, sums)


@pytest.mark.parametrize('turns', [0, 1, STACK, None])
@pytest.mark.parametrize('chosen', range(len(SIZES)))
def test_a_chain_is_the_chosen_branch_as_often(chosen, turns):
  @jax.jit
  def run(chosen, turns):
    def function(accumulator, x):
      return branches_lib.chain(
        chosen, BRANCHES, turns, accumulator, x, CONSTANT
      )

    return both_ways(function, PARAMS, SUMS)

  found = run(jnp.int32(chosen), None if turns is None else jnp.int32(turns))
  often = STACK if turns is None else turns
  assert_is_plain(found, SIZES[chosen], often, PARAMS, SUMS)


def test_a_branch_is_traced_for_its_shapes_once():
  calls = []

  def counted(*arguments):
    calls.append(arguments)
    return compute(*arguments)

  own = [BRANCHES[-1]._replace(compute=counted)]
  for _ in range(2):
    jax.eval_shape(
      lambda params, x: branches_lib.switch(
        0, own, Accumulator(params, jnp.float32(0)), x, CONSTANT
      ),
      first_of(PARAMS),
      X,
    )
  assert len(calls) == 1 + 2  # its shapes, and each result


def test_one_branch_needs_no_choice():
  def function(accumulator, x):
    return branches_lib.switch(0, BRANCHES[-1:], accumulator, x, CONSTANT)

  program = jax.jit(
    lambda: both_ways(function, first_of(PARAMS), first_of(SUMS))
  )
  assert 'while' not in program.lower().as_text()
  both = [v[:1] for v in (PARAMS['w'], SUMS['w'])]
  y, seen, added, *rest = program()
  added = {'w': added['w'][None]}
  assert_is_plain((y, seen, added, *rest), 6, 1, {'w': both[0]}, {'w': both[1]})


def test_sums_are_added_to_in_place():
  """No copy of the stack: that is what loops are for."""
  wide = 64
  params = {'w': jnp.ones((STACK, wide))}

  def run(params, sums, chosen, turns):
    def function(accumulator, x):
      sizes = [branch(size) for size in (wide // 2, wide)]
      return branches_lib.chain(chosen, sizes, turns, accumulator, x, CONSTANT)

    return both_ways(function, params, sums)[2]

  compiled = jax.jit(run, donate_argnums=1).lower(
    params, params, jnp.int32(0), jnp.int32(1)
  )
  text = compiled.compile().as_text()
  copies = [line for line in text.splitlines() if ' copy(' in line]
  stack = f'f32[{STACK},{wide}]'
  assert stack in text
  assert not [line for line in copies if stack in line.split(' copy(')[0]]


def test_branches_not_taken_compute_nothing():
  """Nothing is moved ahead of the loops, of which one alone turns."""

  def run(chosen):
    def function(accumulator, x):
      return branches_lib.switch(chosen, BRANCHES, accumulator, x, CONSTANT)

    return both_ways(function, first_of(PARAMS), first_of(SUMS))

  text = jax.jit(run).lower(jnp.int32(0)).compile().as_text()
  inside, ahead = text.split('ENTRY')
  assert '/tanh' in inside
  assert '/tanh' not in ahead


def test_a_branch_is_told_what_it_remembered():
  told = []

  def tell(params, x, constants, known, turn):
    told.append(known)
    return compute(params, x, constants, known, turn)

  def function(accumulator, x):
    one = branch(6)._replace(compute=tell)
    return branches_lib.switch(0, [one], accumulator, x, CONSTANT)

  both_ways(function, first_of(PARAMS), first_of(SUMS))
  assert told[0] is None
  hidden = jnp.tanh(X.sum() * PARAMS['w'][0])
  np.testing.assert_allclose(told[-1]['h'], hidden, rtol=1e-6)


@pytest.mark.parametrize('chosen', range(len(SIZES)))
def test_each_block_of_a_chain_is_told_its_own(chosen):
  def check(params, x, constants, known, turn):
    y, seen = compute(params, x, constants, None, turn)
    if known is not None:  # a cotangent that passes NaN is NaN
      same = jnp.allclose(known['h'], seen['h'], rtol=1e-5)
      y *= jnp.where(same, 1, jnp.nan)
    return y, seen

  @jax.jit
  def run(chosen):
    def function(accumulator, x):
      branches = [one._replace(compute=check) for one in BRANCHES]
      return branches_lib.chain(
        chosen, branches, None, accumulator, x, CONSTANT
      )

    return both_ways(function, PARAMS, SUMS)

  *_, dx = run(jnp.int32(chosen))
  assert jnp.isfinite(dx).all()


@pytest.mark.parametrize('blocks', [1, STACK])
def test_what_is_remembered_is_not_differentiated(blocks):
  def total(x, weight):
    accumulator = Accumulator(PARAMS if blocks > 1 else first_of(PARAMS), 0.0)
    if blocks > 1:
      y, seen, _ = branches_lib.chain(
        1, BRANCHES, None, accumulator, x, CONSTANT
      )
    else:
      y, seen, _ = branches_lib.switch(1, BRANCHES, accumulator, x, CONSTANT)
    return y.sum() + weight * seen['h'].sum()

  grads = [jax.grad(total)(X, weight) for weight in (0.0, 1.0)]
  np.testing.assert_array_equal(*grads)
  assert total(X, 0.0) != total(X, 1.0)


def test_what_is_recalled_is_not_computed_but_differentiated():
  x, kernel = jnp.arange(6.0).reshape(2, 3), jnp.full((3, 2), 0.5)
  known = jnp.full((2, 2), 7.0)

  def total(known, *operands):
    return recomputation.reuse(jnp.matmul, known, *operands).sum()

  arguments = known, x, kernel
  value, grads = jax.jit(jax.value_and_grad(total, (0, 1, 2)))(*arguments)
  assert value == known.sum()
  assert not grads[0].any()
  expected = jax.grad(lambda x, k: (x @ k).sum(), (0, 1))(x, kernel)
  for found, wanted in zip(grads[1:], expected, strict=True):
    np.testing.assert_array_equal(found, wanted)
  assert total(None, x, kernel) == (x @ kernel).sum()


@pytest.mark.parametrize('per_block', [False, True])
def test_a_stack_of_one_block_computes_the_chosen_branch_only(per_block):
  """No product is outside the loops, where all branches would be computed."""
  wide = 64

  def compute(params, x, constants, known, turn):
    del constants, known, turn
    return jnp.tanh(x @ params['w']) @ params['w'].T, {}

  def sized(size):
    return Branch(
      {'w': jax.ShapeDtypeStruct((wide, size), jnp.float32)}, compute
    )

  params, x = {'w': jnp.ones((1, wide, wide))}, jnp.ones((wide, wide))

  def run(params, sums, chosen, count):
    def function(accumulator, x):
      branches = sized(wide // 2), sized(wide)
      return branches_lib.chain(chosen, branches, count, accumulator, x, ())

    _, back, _ = jax.vjp(
      lambda *a: (lambda y, seen, out: ((y, out), seen))(
        *function(Accumulator(*a[:2]), a[2])
      ),
      *(params, jnp.float32(0), x),
      has_aux=True,
    )
    return back((x, Accumulator(sums, jnp.float32(0))))

  chosen = jnp.zeros(1, jnp.int32) if per_block else jnp.int32(0)
  count = None if per_block else jnp.int32(1)
  program = jax.jit(run, donate_argnums=1).lower(params, params, chosen, count)
  computations = _computations(program.compile().as_text())
  assert any('dot' in text for text in computations.values())
  outside = [computations['ENTRY']]
  for text in outside:
    assert 'dot_general' not in text
    called = re.findall(r'(?:calls|to_apply)=%?([\w.\-]+)', text)
    outside += [computations[name] for name in called]


def _computations(text):
  """Returns the text of each computation of a compiled program, by name."""
  pattern = r'^(?:(ENTRY) )?%?([\w.\-]+) \(.*\{\n((?:.*\n)*?)\}'
  return {
    entry or name: body
    for entry, name, body in re.findall(pattern, text, re.MULTILINE)
  }
