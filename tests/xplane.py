"""Reads a profile back: which operations ran, and what they are parts of.

As the few fields of its protocol buffers that are needed here (XLA's
`xplane.proto` and `hlo.proto`): JAX's own reader does not show the programs,
which name each operation's scope, and version 0.12's aborts at an event's
stats.
"""

import collections
import pathlib
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Message: {field: (number, kind)}; a kind that is a message is repeated,
# unless it is given as 'one X'.
_MESSAGES = {
  'Space': {'planes': (1, 'Plane')},
  'Plane': {
    'name': (2, 'string'),
    'lines': (3, 'Line'),
    'kinds': (4, 'Kind'),
    'stat_kinds': (5, 'Kind'),
  },
  'Line': {'events': (4, 'Event')},
  'Event': {'kind': (1, 'int64'), 'stats': (4, 'Stat')},
  'Kind': {'id': (1, 'int64'), 'value': (2, 'one Named')},
  'Named': {'name': (2, 'string'), 'stats': (5, 'Stat')},
  'Stat': {
    'kind': (1, 'int64'),
    'uint64': (3, 'uint64'),
    'int64': (4, 'int64'),
    'string': (5, 'string'),
    'bytes': (6, 'bytes'),
    'ref': (7, 'uint64'),  # a string that is the name of a kind
  },
  'Hlo': {'module': (1, 'one Module')},
  'Module': {'name': (1, 'string'), 'computations': (3, 'Computation')},
  'Computation': {'instructions': (2, 'Instruction')},
  'Instruction': {'name': (1, 'string'), 'metadata': (7, 'one Metadata')},
  'Metadata': {'op_name': (2, 'string')},
}


def _classes():
  file = descriptor_pb2.FileDescriptorProto(name='profile', package='profile')
  of = descriptor_pb2.FieldDescriptorProto
  plain = {
    'string': of.TYPE_STRING,
    'bytes': of.TYPE_BYTES,
    'int64': of.TYPE_INT64,
    'uint64': of.TYPE_UINT64,
  }
  for message, fields in _MESSAGES.items():
    described = file.message_type.add(name=message)
    for name, (number, kind) in fields.items():
      field = described.field.add(
        name=name, number=number, label=of.LABEL_OPTIONAL
      )
      if kind in plain:
        field.type = plain[kind]
        continue
      if not kind.startswith('one '):
        field.label = of.LABEL_REPEATED
      field.type = of.TYPE_MESSAGE
      field.type_name = f'.profile.{kind.removeprefix("one ")}'
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return {
    name: message_factory.GetMessageClass(
      pool.FindMessageTypeByName(f'profile.{name}')
    )
    for name in _MESSAGES
  }


_CLASSES = _classes()


def scopes(path: pathlib.Path) -> dict[str, dict[str, str]]:
  """By program and instruction: the scope, such as `jit(biggest)/.../add`."""
  found = {}
  for plane in _planes(path):
    if plane.name != '/host:metadata':
      continue
    for kind in plane.kinds:
      for stat in kind.value.stats:
        module = _CLASSES['Hlo'].FromString(stat.bytes).module
        # Another program of this process may have had the same name.
        found.setdefault(module.name, {}).update(
          (one.name, one.metadata.op_name)
          for computation in module.computations
          for one in computation.instructions
        )
  return found


def ran(path: pathlib.Path) -> collections.Counter:
  """How often each (program, instruction) ran."""
  return collections.Counter(
    (stats['hlo_module'], stats['hlo_op'])
    for _, stats in _events(path)
    if 'hlo_op' in stats
  )


def steps(path: pathlib.Path) -> list[int]:
  """Numbers of the training steps whose beginning is in the profile."""
  return sorted(
    int(stats['step_num']) for name, stats in _events(path) if name == 'train'
  )


def _planes(path: pathlib.Path) -> Any:
  return _CLASSES['Space'].FromString(path.read_bytes()).planes


def _events(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Each event's name and stats."""
  for plane in _planes(path):
    names = {kind.id: kind.value.name for kind in plane.kinds}
    stat_names = {kind.id: kind.value.name for kind in plane.stat_kinds}
    for line in plane.lines:
      for event in line.events:
        stats = {}
        for stat in event.stats:
          for field, value in stat.ListFields():
            if field.name != 'kind':
              value = stat_names[value] if field.name == 'ref' else value
              stats[stat_names[stat.kind]] = value
        yield names[event.kind], stats
