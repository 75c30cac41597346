"""What a search asks: the accuracy of a child on held-out images."""

import time

from bignas_jax import counting, evaluation, metrics, training
from bignas_jax.arch import Arch
from bignas_jax.archive import Archive, Entry
from bignas_jax.trained import Run


class Scorer:
  """score(arch): looks up, or calibrates and evaluates, and archives.

  Attributes:
    evaluator: of held-out images.
    seen: what was asked for, in that order.
    evaluated: how many of them were not in the archive.
    seconds: what those took.
  """

  def __init__(
    self,
    run: Run,
    archive: Archive,
    strategy: str,
    progress: metrics.Progress,
  ):
    self._run, self._archive, self._strategy = run, archive, strategy
    self._progress = progress
    self._known = {entry.key(): entry for entry in archive.entries}
    self.evaluator: evaluation.Evaluator = training.evaluator(
      run.config, run.model, run.splits, run.splits.held_out
    )
    self.seen: list[Entry] = []
    self.evaluated, self.seconds = 0, 0.0

  def __call__(self, arch: Arch) -> float:
    entry = self._known.get(self._key(arch))
    if entry is None:
      entry = self._evaluate(arch)
      self._archive.append(entry)
      self._known[entry.key()] = entry
    self.seen.append(entry)
    self._progress.advance(len(self.seen))
    return entry.top1

  def known(self, entries: list[Entry]) -> dict[Arch, float]:
    """Top-1 of those that were scored as this scorer would."""
    return {e.arch: e.top1 for e in entries if e.key() == self._key(e.arch)}

  def _key(self, arch: Arch) -> tuple:
    run = self._run
    images = len(run.splits.held_out)
    return arch, images, run.config.calibration.images, run.step

  def _evaluate(self, arch: Arch) -> Entry:
    run, began = self._run, time.monotonic()
    score = self.evaluator.score(run.params, arch)
    self.seconds += time.monotonic() - began
    self.evaluated += 1
    cost = counting.cost(run.model.space, arch)
    return Entry(
      arch,
      cost.macs,
      cost.params,
      score.top1,
      score.images,
      run.config.calibration.images,
      len(self._archive.entries),
      self._strategy,
      run.step,
    )
