"""Every evaluated child of a run, in `search/archive.csv`, as it is found."""

import csv
import io
import json
from typing import NamedTuple

from etils import epath

from bignas_jax import arch as arch_lib
from bignas_jax import errors, process, storage
from bignas_jax.arch import Arch
from bignas_jax.space import Space


class Entry(NamedTuple):
  """One line; accuracies are on held-out training images."""

  arch: Arch
  macs: int
  params: int
  top1: float
  images: int
  calibration_images: int
  order: int
  strategy: str
  step: int  # of the supernet


class Archive:
  """Reads what is there and appends; never rewrites.

  Of several processes the first appends to the file.

  Raises:
    UserError: a line cannot be read.
  """

  def __init__(self, path: epath.Path, space: Space):
    self._path, self._space = path, space
    self.entries: list[Entry] = []
    if path.exists():
      file = io.StringIO(path.read_text(), newline='')
      lines = enumerate(csv.DictReader(file), start=2)
      self.entries = [self._read(number, line) for number, line in lines]

  def append(self, entry: Entry) -> None:
    self.entries.append(entry)
    if not process.leads():
      return
    self._path.parent.mkdir(parents=True, exist_ok=True)
    file = io.StringIO(newline='')
    writer = csv.writer(file)
    if not self._path.exists():
      writer.writerow(Entry._fields)
    writer.writerow([arch_lib.to_json(entry.arch), *entry[1:]])
    storage.append(self._path, file.getvalue())

  def _read(self, number: int, line: dict[str, str]) -> Entry:
    try:
      fields = {name: line[name] for name in Entry._fields}
      arch = arch_lib.from_dict(self._space, json.loads(fields.pop('arch')))
      kinds = Entry.__annotations__
      values = {name: kinds[name](text) for name, text in fields.items()}
    except (KeyError, TypeError, ValueError) as error:
      raise errors.UserError(
        f'{self._path} line {number}',
        str(error),
        'an evaluated child; mend or delete the line',
      ) from None
    return Entry(arch=arch, **values)
