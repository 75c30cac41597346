"""The recommended children, in `search/recommended.json`: one a request.

Each entry says which file to copy to the device, once the child has been
extracted into the run's directory `children`.
"""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from etils import epath

from bignas_jax.reporting import (
  children_table,
  contents,
  recommendations,
  run_files,
)
from bignas_jax.reporting.run_files import ChildFile
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory, restore
from bignas_jax.runs.archive import Entry
from bignas_jax.selection import questions
from bignas_jax.selection.scorer import Basis, Scorer
from bignas_jax.selection.task import Task
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.system import console, files
from bignas_jax.values import errors

NAME = recommendations.NAME
FILES = NAME, children_table.NAME
_DEVICE = 'device', 'runtime', 'batch', 'statistic'


class Answers(NamedTuple):
  """What a command found, before it is written.

  Attributes:
    chosen: the child for each task.
    record: contents of the file.
    rows: rows of the table of children.
  """

  chosen: list[Entry]
  record: dict[str, Any]
  rows: list[children_table.Row]

  @property
  def entries(self) -> list[dict[str, Any]]:
    """Returns the entries of the file."""
    return self.record['recommended']


def collect(
  workdir: epath.Path,
  run: restore.Run,
  tasks: Sequence[Task],
  scorers: Sequence[Scorer],
  archive: Iterable[Entry],
) -> Answers:
  """Returns the best child for each task, and the table of children.

  A child that was evaluated for one of the tasks may be the answer to any.

  Args:
    workdir: directory of the run, where extracted children are looked for.
    run: the run.
    tasks: what was asked.
    scorers: scorer of each task, which has seen its children.
    archive: all children that were ever evaluated.
  """
  every = [entry for scorer in scorers for entry in scorer.visited]
  chosen = [
    max(
      (entry for entry in every if task.fits(entry.arch)),
      key=lambda entry: (entry.top1, -entry.macs),
    )
    for task in tasks
  ]
  basis = Basis(run.step, run.config.calibration.images)
  rows = children_table.make(run.model.space, filter(basis.holds, archive))
  made = {'step': run.step, 'config_sha256': run.config_sha256}
  there = _by_arch(_readable(workdir), made)
  entries = [
    _with_files(workdir, _entry(number, task, entry), there.get(entry.arch))
    for number, (task, entry) in enumerate(zip(tasks, chosen, strict=True), 1)
  ]
  return Answers(chosen, made | {'recommended': entries}, _named(rows, there))


def write(workdir: epath.Path, answers: Answers) -> None:
  """Writes the recommended children, and the table of children."""
  config, search = directory.load_config(workdir), workdir / 'search'
  space = config_lib.space(config)
  files.write_json(search / NAME, answers.record)
  table = search / children_table.NAME
  children_table.write(table, config, space, answers.rows)


def _entry(number: int, task: Task, entry: Entry) -> dict[str, Any]:
  """Returns what is known of a child before it is extracted."""
  costs = files.finite(dict(task.costs(entry.arch)))
  about = task.latency or {}
  return {
    'child': f'recommended:{number}',
    **{name: about.get(name) for name in _DEVICE},
    'limits': task.limits.to_dict(),
    'arch': arch_lib.to_dict(entry.arch),
    'macs': entry.macs,
    'params': entry.params,
    'file_bytes': costs['file_bytes'],
    'memory_bytes': costs['memory_bytes'],
    'predicted_ms': costs.get('latency_ms'),
    'accuracy': {
      'float32': {
        'held_out': {
          'top1': entry.top1,
          'top5': entry.top5,
          'images': entry.images,
        }
      }
    },
  }


def _readable(workdir: epath.Path) -> list[ChildFile]:
  """Returns the children in the run's directory; warns of damaged ones."""
  children = []
  for path in run_files.packages(workdir):
    try:
      children.append(run_files.child(path))
    except errors.UserError as error:
      console.say(f'warning: this package is left out: {error}')
  return children


def _by_arch(
  children: Iterable[ChildFile], made: dict[str, Any]
) -> dict[Arch, ChildFile]:
  """Returns the children of the run's step by their architecture.

  Of several packages of one child, it is that of which most was made.

  Args:
    children: children in the run's directory.
    made: the run's `step` and `config_sha256`.
  """
  of_run = made.get('step'), made.get('config_sha256')
  by_arch = {}
  for child in sorted(children, key=_made):
    source = child.info.source
    if (source.step, source.config_sha256) == of_run:
      by_arch[child.arch] = child
  return by_arch


def _made(child: ChildFile) -> tuple[int, int]:
  return len(child.exports.formats), len(child.measured.rows or ())


def _with_files(
  workdir: epath.Path, entry: dict[str, Any], child: ChildFile | None
) -> dict[str, Any]:
  """Returns an entry with what was made of its child; None: it is not there."""
  held_out = entry['accuracy']['float32']['held_out']
  if child is None:
    float32 = {'held_out': held_out, 'test': None}
    made = {'package': None, 'file': None, 'bytes': None, 'int8_file': None}
    accuracy = {'float32': float32, 'int8': None}
    return entry | made | {'measured_ms': None, 'accuracy': accuracy}
  tested, small = child.info.accuracy, _quantised(child)
  test = {'top1': tested.top1, 'top5': tested.top5, 'images': tested.images}
  about = {name: entry.get(name) for name in _DEVICE}
  package, file = f'children/{child.name}', file_of(child, about['runtime'])
  return entry | {
    'package': package,
    'file': file,
    'bytes': _bytes(workdir / file),
    'int8_file': small and f'{package}/export/{small.file}',
    'measured_ms': contents.measured_ms(child.measured, about),
    'accuracy': {
      'float32': {'held_out': held_out, tested.split or 'test': test},
      'int8': small
      and {'test': {'top1': small.top1, 'top5': None, 'images': small.images}},
    },
  }


def _quantised(child: ChildFile) -> contents.Reduced | None:
  """Returns the first int8 artifact of a child."""
  every = (made.int8 for made in child.exports.formats.values())
  return next((one for one in every if one is not None), None)


def file_of(child: ChildFile, runtime: str | None = None) -> str:
  """Returns what to copy, relative to the work directory.

  That is the float32 artifact for the runtime, else the first float32 artifact,
  else the weights.

  Args:
    child: an extracted child.
    runtime: runtime of the device, as latency tables name it.
  """
  formats = child.exports.formats
  for name in sorted(formats, key=lambda name: name != runtime):
    made = formats[name]
    reduced = {one.file for one in (made.int8, made.float16) if one}
    names = {file.split('/')[0] for file in made.files} - reduced
    if names:
      return f'children/{child.name}/export/{min(names)}'
  return f'children/{child.name}/model.safetensors'


def _bytes(path: epath.Path) -> int | None:
  """Returns the bytes of a file or of all files in a directory."""
  if path.is_dir():
    return sum(_bytes(inside) or 0 for inside in path.iterdir())
  return path.stat().length if path.exists() else None


def _named(
  rows: Iterable[children_table.Row], there: dict[Arch, ChildFile]
) -> list[children_table.Row]:
  """Returns the rows with the files of those children that were extracted."""
  made = {arch: file_of(child) for arch, child in there.items()}
  return [row._replace(file=made.get(row.arch, '')) for row in rows]


def refresh(workdir: epath.Path) -> None:
  """Writes both files anew, with what was made of their children since.

  It writes nothing if no search has ended yet, or if one is running.

  Raises:
    UserError: one of the files, or a child in the run's directory, is damaged.
  """
  path = workdir / 'search' / NAME
  if not path.is_file():
    return
  with contextlib.ExitStack() as held:
    try:
      held.enter_context(questions.alone(path.parent))
    except errors.UserError as error:
      console.say(f'warning: {path} stays as it is: {error}')
      return
    space = config_lib.space(directory.load_config(workdir))
    record, archs = files.read_json(path), _archs(path, space)
    children = map(run_files.child, run_files.packages(workdir))
    there = _by_arch(children, record)
    record['recommended'] = [
      _with_files(workdir, entry, there.get(arch))
      for entry, arch in zip(record['recommended'], archs, strict=True)
    ]
    rows = children_table.read(path.parent / children_table.NAME, space)
    write(workdir, Answers([], record, _named(rows, there)))


def _archs(path: epath.Path, space: Space) -> list[Arch]:
  """Returns the architectures of the entries in a file, after checking it.

  Raises:
    UserError: the file is damaged.
  """
  entries = recommendations.read(path.parent)
  with errors.within(path):
    return [arch_lib.from_dict(space, entry.arch) for entry in entries]


def child(workdir: epath.Path, space: Space, text: str) -> Arch:
  """Returns a recommended child by its number from 1, as text.

  Raises:
    UserError: there is no such child, or the file is damaged.
  """
  path = workdir / 'search' / NAME
  archs = _archs(path, space)
  if not archs:
    allowed = f'a child of a searched run; there is no {path}'
    raise errors.UserError('--arch', f'recommended:{text}', allowed)
  if text not in [str(number) for number in range(1, len(archs) + 1)]:
    allowed = f'recommended:1 to recommended:{len(archs)}, of {path}'
    raise errors.UserError('--arch', f'recommended:{text}', allowed)
  return archs[int(text) - 1]
