"""Folders of small real image files."""

import cv2
import numpy as np


def write(folder, classes, each, side=(12, 9), gray=False, suffix='.jpg'):
  """Writes images whose brightness tells their class."""
  rng = np.random.default_rng(0)
  for label, name in enumerate(classes):
    (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(each):
      shape = (*side, 1 if gray else 3)
      level = 40 + 150 * label // max(len(classes) - 1, 1)
      pixels = rng.integers(level - 30, level + 30, shape).astype(np.uint8)
      assert cv2.imwrite(str(folder / name / f'{i:03}{suffix}'), pixels)
  return folder
