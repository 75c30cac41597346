"""How the time is shared between training and all that follows it."""

from bignas_jax.fitting.trial import Measured

# Programs of a step are traced again when training starts; XLA's part is kept.
_AGAIN = 0.4
# Share of the whole time in which children are evaluated.
_SEARCH = 0.15
_LEAST_EVALUATIONS, _MOST_EVALUATIONS = 4, 64  # of each search
_WORTH = 1.25  # times as many evaluations are worth another search
# That share if training has used up the time: a long run is not worth much
# without a search, and ends a little later.
_LATE_SEARCH = 0.1
# Extraction compiles programs for one resolution; the export and its check add
# a few seconds.
_EXTRACTION, _EXPORT_S = 0.6, 3.0
# An int8 file is compared with the child on more images than an evaluation has
# if a search is short, and by slower programs where a CPU has no int8 products.
_INT8, _INT8_S = 2, 2.0
_TIMING_S = 1.0  # a child's latency
# Other programs of the machine may slow training down.
_CAUTION = 0.9
# Share of the whole time in which steps are measured, and at most.
_MEASURING, _MEASURING_S = 0.04, 60.0


def for_measuring(minutes: float) -> float:
  """Returns for how many seconds steps are measured."""
  return min(60 * minutes * _MEASURING, _MEASURING_S)


def for_training(
  left_s: float, minutes: float, measured: Measured, requests: int
) -> float:
  """Returns the seconds for training, of those that are left for all.

  Args:
    left_s: seconds that are left.
    minutes: time for everything.
    measured: seconds of the parts.
    requests: number of children that will be searched for.
  """
  least = requests * _LEAST_EVALUATIONS * measured.child_s
  search = max(60 * minutes * _SEARCH, least)
  # The last evaluation compiles again, and so does the search.
  start = _AGAIN * (measured.compile_s + 2 * measured.evaluator_s)
  after = search + for_children(measured, requests)
  return _CAUTION * (left_s - start - after)


def for_children(measured: Measured, requests: int) -> float:
  """Returns the seconds to extract, export, check and time so many children."""
  each = _EXTRACTION * measured.evaluator_s + 3 * measured.child_s + _EXPORT_S
  return requests * (each + for_int8(measured) + _TIMING_S)


def for_int8(measured: Measured) -> float:
  """Returns the seconds to make and check the int8 file of a child."""
  return _INT8 * measured.child_s + _INT8_S


def evaluations(
  left_s: float, minutes: float, measured: Measured, requests: int
) -> int:
  """Returns how many children each search may evaluate.

  Args:
    left_s: seconds that are left.
    minutes: time for everything.
    measured: seconds of the parts.
    requests: number of searches.
  """
  start = _AGAIN * measured.evaluator_s
  seconds = left_s - start - for_children(measured, requests)
  seconds = max(seconds, 60 * minutes * _LATE_SEARCH)
  possible = int(seconds / (requests * measured.child_s))
  return max(_LEAST_EVALUATIONS, min(possible, _MOST_EVALUATIONS))


def more_evaluations(
  number: int, spare_s: float, each_s: float, requests: int
) -> int:
  """Returns how many children each search may evaluate when it is repeated.

  A search that is repeated finds what it evaluated in the archive.

  Args:
    number: how many it evaluated.
    spare_s: seconds that nothing else needs.
    each_s: seconds of an evaluation in these searches.
    requests: number of searches.

  Returns:
    A number that is worth another search, or the same number.
  """
  more = number + int(max(0, spare_s) / (requests * each_s))
  more = min(more, _MOST_EVALUATIONS)
  return more if more >= _WORTH * number else number
