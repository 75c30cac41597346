"""Which sizes a block is compiled in."""

import bisect
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bignas_jax.spaces import zoo
from bignas_jax.spaces.stage import Stage
from bignas_jax.supernet import blocks, stage_blocks
from bignas_jax.supernet.batch_norm import Pooling


def of(stage, width_in):
  changes = len({*width_in, *stage.width}) > 1
  return stage_blocks.Block(
    stage, width_in, True, changes, 'same', 1e-3, Pooling()
  )


choices = st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True).map(
  lambda values: tuple(sorted(values))
)


@settings(max_examples=40)
@given(choices, st.sampled_from([(1,), (6,), (3, 4, 6), (4, 5, 6)]))
def test_each_child_runs_the_first_variant_that_holds_it(widths, ratios):
  widths = tuple(8 * width for width in widths)
  block = of(
    Stage(width=widths, depth=(1,), kernel_size=(3,), expand_ratio=ratios),
    widths,
  )
  needed, variants = block.hidden(), block.variants()
  sizes = [variant.most_hidden for variant in variants]
  assert sizes == sorted(set(sizes))
  assert set(sizes) <= set(needed)
  assert sizes[-1] == max(needed)
  assert block.variant() == [bisect.bisect_left(sizes, n) for n in needed]
  computed = [sizes[i] for i in block.variant()]
  assert all(c >= n for c, n in zip(computed, needed, strict=True))
  assert sum(computed) <= 1.05 * sum(needed) or len(sizes) == 4
  for variant, size in zip(variants, sizes, strict=True):
    assert max(variant.hidden()) == size
    assert blocks.shapes(variant)['project']['kernel'].shape[0] == size


@pytest.mark.parametrize(
  'stage, width_in, sizes',
  [
    # As many sizes as it takes, each as large as some child's.
    (1, (16, 24), [96, 144]),
    (3, (80, 88), [528]),
    (5, (192, 200, 208, 216), [1200, 1296]),
  ],
)
def test_sizes_of_bignas(stage, width_in, sizes):
  block = of(zoo.BIGNAS.stages[stage], width_in)
  assert [v.most_hidden for v in block.variants()] == sizes


def _few_by_trying_all(hidden):
  """What `stage_blocks.few_sizes` means, written out."""
  *smaller, most = sorted(set(hidden))

  def computed(sizes):
    return sum(min(size for size in sizes if size >= h) for h in hidden)

  for n in range(len(smaller) + 1):
    tried = [(*some, most) for some in itertools.combinations(smaller, n)]
    best = min(map(computed, tried))
    if best <= 1.05 * sum(hidden) or n == 3:
      return min(sizes for sizes in tried if computed(sizes) == best)
  raise AssertionError('all sizes fit')


# Few different numbers, so that many choices are equally good.
@given(
  st.one_of(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.lists(st.integers(1, 200), min_size=1, max_size=9),
    st.lists(st.integers(1, 30).map(lambda n: 8 * n), min_size=1, max_size=12),
  )
)
@settings(max_examples=300)
def test_the_fewest_sizes_are_those_that_trying_all_finds(hidden):
  assert stage_blocks.few_sizes(tuple(hidden)) == _few_by_trying_all(hidden)


def test_the_sizes_of_many_widths_are_found_at_once():
  """US-Net's: trying all subsets of 31 sizes would take hours."""
  widths = tuple(range(80, 321, 8))
  stage = Stage(width=widths, depth=(1,), kernel_size=(3,), expand_ratio=(6,))
  began = time.monotonic()
  sizes = [variant.most_hidden for variant in of(stage, widths).variants()]
  assert time.monotonic() - began < 1
  assert sizes[-1] == 6 * 320 and len(sizes) == 4


def test_one_network_has_one_size_and_no_masks():
  stage = Stage(width=(24,), depth=(1,), kernel_size=(3,), expand_ratio=(6,))
  block = of(stage, (16,))
  assert [v.most_hidden for v in block.variants()] == [96]
  assert block.hidden() == [96]


def test_an_identity_is_added_where_the_active_widths_are_equal():
  """Of a block whose two widths vary; positions say nothing about widths."""
  inputs, outputs = (24, 32), (16, 24, 32)
  stage = Stage(
    width=outputs,
    depth=(1,),
    kernel_size=(3,),
    expand_ratio=(2,),
    shortcut='identity',
  )
  block = of(stage, inputs)
  params = jax.tree.map(  # all of the block but its shortcut is 0
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blocks.shapes(block)
  )
  images = np.random.default_rng(0).normal(size=(2, 4, 4, 32))

  @jax.jit
  def program(x, active):
    return blocks.apply(block, params, None, x, active)[0]

  for i, j in np.ndindex(2, 3):
    x = np.float32(images * (np.arange(32) < inputs[i]))
    zero = jnp.zeros((), jnp.int32)
    active = stage_blocks.Active(jnp.asarray(i), jnp.asarray(j), zero, zero)
    same = inputs[i] == outputs[j]
    np.testing.assert_array_equal(program(x, active), x * same)
