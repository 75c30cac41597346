"""The score that a search asks for: a child's accuracy on held-out images."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from bignas_jax.costs import counting
from bignas_jax.runs.archive import Archive, Entry
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet.evaluation import Score
from bignas_jax.system import console
from bignas_jax.values import errors


class Basis(NamedTuple):
  """What all scores of a search depend on, apart from the child.

  Attributes:
    step: step of the supernet.
    calibration_images: number of images that a child's statistics are taken
      from.
  """

  step: int
  calibration_images: int

  def holds(self, entry: Entry) -> bool:
    """Returns whether an archived entry was scored on this basis."""
    basis = entry.step, entry.calibration_images
    return basis == (self.step, self.calibration_images)


class Scorer:
  """A function from a child to its top-1, which reads and extends the archive.

  Entries are looked up by the child and the basis. The number of images that an
  evaluation counted is not part of the key: it is known only afterwards,
  because damaged images are left out.

  Args:
    space: space of the children.
    evaluate: function that calibrates a child and evaluates it on held-out
      images.
    archive: archive of the run.
    basis: basis of the scores.
    strategy: name of the strategy that asks.
    progress: progress bar of the search.
    pause: function called before each evaluation.

  Attributes:
    visited: entries of the children that were asked for, in order.
    evaluated: number of entries that were not in the archive.
    seconds: time that the evaluations took, seconds.
  """

  def __init__(
    self,
    space: Space,
    evaluate: Callable[[Arch], Score],
    archive: Archive,
    basis: Basis,
    strategy: str,
    progress: console.Progress,
    pause: Callable[[], None],
  ):
    self._space, self._evaluate = space, evaluate
    self._archive, self._basis = archive, basis
    self._strategy, self._progress, self._pause = strategy, progress, pause
    entries = [entry for entry in archive.entries if basis.holds(entry)]
    self._cached = {entry.arch: entry for entry in entries}
    self._counted = {entry.images for entry in entries}
    self.visited: list[Entry] = []
    self.evaluated, self.seconds = 0, 0.0

  def __call__(self, arch: Arch) -> float:
    """Returns a child's top-1, from the archive or by evaluating the child."""
    entry = self._cached.get(arch)
    if entry is None:
      entry = self._new_entry(arch)
      self._archive.append(entry)
      self._cached[arch] = entry
    self.visited.append(entry)
    self._progress.advance(len(self.visited))
    return entry.top1

  def scores(self, entries: Iterable[Entry]) -> dict[Arch, float]:
    """Returns the top-1 of entries that were scored on the same basis."""
    return {e.arch: e.top1 for e in entries if self._basis.holds(e)}

  def best(self, fits: Callable[[Arch], bool]) -> Entry:
    """Returns the most accurate child that fits; of several, the cheapest.

    Some strategies also ask for children that break the limits.
    """
    fitting = [entry for entry in self.visited if fits(entry.arch)]
    if not fitting:  # a strategy of ours always asks for one
      got = f'{len(self.visited)} children, none of which keeps the limits'
      allowed = f'{self._strategy} scores a child that keeps the limits'
      raise errors.UserError('--strategy', got, allowed)
    return max(fitting, key=lambda entry: (entry.top1, -entry.macs))

  def _new_entry(self, arch: Arch) -> Entry:
    self._pause()
    with errors.within(f'--strategy {self._strategy}'):
      arch_lib.check(self._space, arch)
    began = time.monotonic()
    score = self._evaluate(arch)
    self.seconds += time.monotonic() - began
    self.evaluated += 1
    self._compare(score.images)
    cost = counting.cost(self._space, arch)
    return Entry(
      arch,
      cost.macs,
      cost.params,
      score.top1,
      score.images,
      self._basis.calibration_images,
      len(self._archive.entries),
      self._strategy,
      self._basis.step,
      score.top5,
    )

  def _compare(self, images: int) -> None:
    """Warns if a score counts another number of images than earlier ones."""
    if self._counted and images not in self._counted:
      others = ' or '.join(map(str, sorted(self._counted)))
      self._progress.note(
        f'warning: {images} held-out images are counted, and were {others} '
        f'for other children of step {self._basis.step} in the archive'
      )
    self._counted.add(images)
