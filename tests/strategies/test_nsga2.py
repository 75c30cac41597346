"""What NSGA-II sorts by: ranks and crowding distances, as pymoo has them."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
from pymoo.operators.survival.rank_and_crowding import metrics
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from bignas_jax.strategies import nsga2

POINTS = st.lists(
  st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)),
  min_size=1,
  max_size=25,
).map(lambda rows: np.array(rows, float))


@hypothesis.given(POINTS)
def test_ranks_are_pymoos(points):
  _, ranks = NonDominatedSorting().do(points, return_rank=True)
  np.testing.assert_array_equal(nsga2.ranks(points), ranks)


@hypothesis.given(st.integers(3, 30), st.integers(2, 4), st.integers(0, 2**32))
def test_crowding_distances_are_pymoos(n, objectives, seed):
  """pymoo takes the mean over objectives, the paper the sum."""
  front = np.random.default_rng(seed).normal(size=(n, objectives))
  expected = objectives * metrics.calc_crowding_distance(front)
  np.testing.assert_allclose(nsga2.crowding(front), expected)


def test_crowding_of_a_front_counted_by_hand():
  # Ranges 4 and 8; the two in the middle lack (3, 7) and (3, 5) of them.
  points = np.array([[0, 8], [1, 5], [3, 1], [4, 0]], float)
  expected = [np.inf, 3 / 4 + 7 / 8, 3 / 4 + 5 / 8, np.inf]
  np.testing.assert_allclose(nsga2.crowding(points), expected)


@hypothesis.given(POINTS, st.integers(1, 25))
def test_survivors_are_of_the_first_fronts(points, size):
  kept = nsga2.survivors(points, size)
  assert len(kept) == len(set(kept)) == min(size, len(points))
  ranks = nsga2.ranks(points)
  lost = set(range(len(points))) - set(kept)
  assert all(ranks[i] <= ranks[j] for i in kept for j in lost)
