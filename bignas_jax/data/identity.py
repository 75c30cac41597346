"""The identity of the data that a run or a child was made with.

Class names decide what a label means; names and labels of the training images
decide which images are held out. Digests of both are kept in `config.json` and
`child.json`, and every command that reads images compares them with the data
that it finds. The path is not compared, because data may move.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from bignas_jax.data import sources
from bignas_jax.system import console
from bignas_jax.values import errors, schema, stored

_CLASSES = 'classes'
_said: set[str] = set()


@dataclasses.dataclass(frozen=True)
class _Classes:
  """The classes of the data, in the order of the labels."""

  count: int
  sha256: str
  names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Split:
  images: int
  sha256: str  # what `Source.digest` returns


@dataclasses.dataclass(frozen=True)
class _Identity:
  """The result of `describe`, typed, to check what a file says."""

  classes: _Classes
  train: _Split
  held_out: _Split
  test: _Split
  second: _Split | None = None  # where there is one


class Opened(NamedTuple):
  """The data of a child.

  Attributes:
    data: how images are read and shown to the network.
    splits: the images.
    differs: how the images differ from those that the child was made with, in
      words; empty if they do not.
  """

  data: sources.Data
  splits: sources.Splits
  differs: list[str]


def describe(splits: sources.Splits) -> dict[str, Any]:
  """Returns plain JSON that is equal for equal data in equal splits."""
  description: dict[str, Any] = {_CLASSES: _classes(splits.train.classes)}
  for name, split in splits._asdict().items():
    if name == 'second' and not len(split):
      continue  # as in files of versions that had no second split
    description[name] = {'images': len(split), 'sha256': split.digest()}
  return description


def _classes(names: Sequence[str]) -> dict[str, Any]:
  text = '\0'.join(names).encode(errors='surrogateescape')
  return {
    'count': len(names),
    'sha256': hashlib.sha256(text).hexdigest(),
    'names': list(names),
  }


def differences(
  there: dict[str, Any], here: dict[str, Any], keys: Sequence[str]
) -> list[str]:
  """Returns in words how two descriptions differ; [] if they do not.

  Args:
    there: description of the data that something was made with.
    here: description of the data that are found now.
    keys: what to compare: `classes` and names of splits.
  """
  changes = []
  for key in keys:
    record, now = there[key], here[key]
    if record['sha256'] == now['sha256']:
      continue
    if key == _CLASSES:
      names = other_classes(record['names'], now['names'])
      text = f'{record["count"]} there, {now["count"]} here; {names}'
    elif record['images'] == now['images']:
      text = f'{now["images"]} images here, as there, but others'
    else:
      text = f'{record["images"]} images there, {now["images"]} here'
    changes.append(f'{key}: {text}')
  return changes


def other_classes(there: Sequence[str], here: Sequence[str]) -> str:
  """Returns in words how two lists of class names differ; '' if they do not."""
  changes = []
  for what, ones, others in (('new', here, there), ('missing', there, here)):
    names = [name for name in ones if name not in set(others)]
    if names:
      which = f'{len(names)} are' if len(names) > 1 else 'is'
      such = f'{names[0]!r} ' if len(names) == 1 else ''
      example = f', such as {names[0]!r}' if len(names) > 1 else ''
      changes.append(f'{such}{which} {what}{example}')
  if not changes and list(there) != list(here):
    return 'they are in another order'
  return ', '.join(changes)


def check(
  record: Any, here: dict[str, Any], directory: str, whose: str
) -> None:
  """Checks that the data are those that a run was made with.

  Args:
    record: the description in the run's `config.json`; None if an older version
      wrote the file without one, which is printed once.
    here: the description of the data that are found.
    directory: the directory of the data, for the message.
    whose: the run, for the message.

  Raises:
    UserError: the data are others; says how they differ.
  """
  if record is None:
    _say_unknown(whose)
    return
  schema.convert(_Identity, record, f'{whose}: data', others=True)
  changes = differences(record, here, list(here))
  if changes:
    allowed = f'the data that {whose} was made with; ' + '; '.join(changes)
    raise errors.UserError('data.directory', directory, allowed)


def check_classes(splits: sources.Splits, classes: int) -> None:
  """Raises UserError if the space has fewer classes than the data.

  If the space has more, it prints a warning.
  """
  needed = len(splits.train.classes)
  if classes < needed:
    raise errors.UserError(
      'space.classes', classes, f'at least {needed}, the classes of the data'
    )
  if classes > needed:
    console.say(
      f'warning: space.classes is {classes}, the data have {needed} classes: '
      f'outputs {needed} to {classes - 1} stand for nothing'
    )


def of_child(
  info: dict[str, Any], directory: str, split: str, *more: str
) -> Opened:
  """Opens the data that a child was made with.

  A child is a network of its own, so if only test images are used, other images
  may be chosen by naming their directory. Held-out images must not be among the
  training images, which is certain only if the data are unchanged.

  Args:
    info: content of `child.json`.
    directory: where the data are now; '': where they were.
    split: the split whose images are used.
    *more: names of other splits that are used, such as `train`.

  Raises:
    UserError: the data are missing, or are others; says how they differ.
  """
  version = stored.version_of(info)
  record = info.get('data')
  data = stored.convert(sources.Data, record, 'child.json: data', version)
  data = sources.placed(data, directory)
  splits = sources.load(data, info['input']['channels'])
  record = info.get('data_identity')
  if record is None:
    names = splits.train.classes
    _say_unknown(
      'this child', other_classes(info.get('class_names', names), names)
    )
    return Opened(data, splits, [])
  field = 'child.json: data_identity'
  schema.convert(_Identity, record, field, others=True)
  here = describe(splits)
  used = ('train', 'held_out') if split == 'held_out' else (split, *more)
  classes = differences(record, here, [_CLASSES])
  changes = differences(record, here, used)
  if classes or (changes and (split == 'held_out' or not directory)):
    allowed = 'the data that the child was made with; '
    allowed += '; '.join(classes + changes)
    if not classes and split != 'held_out':
      allowed += ' (or other images, if you name them: --data=DIRECTORY)'
    raise errors.UserError('data.directory', data.directory, allowed)
  if changes:
    console.say(
      'warning: these are not the images that the child was made with; '
      + '; '.join(changes)
    )
  return Opened(data, splits, changes)


def _say_unknown(whose: str, classes: str = '') -> None:
  """Prints once that data are not compared, and how class names differ."""
  text = f'{whose} was made by a version that did not describe its data'
  if text not in _said:
    _said.add(text)
    more = f'; its classes have other names: {classes}' if classes else ''
    console.say(f'{text}: they are not compared{more}')
