"""Reads a profile back: which operations ran, and what they are parts of.

Events are read by JAX's own reader. The programs, which lie beside them in
the file and name each operation's scope, are not shown by it: they are read
as the few fields of their protocol buffers that are needed here (XLA's
`xplane.proto` and `hlo.proto`).
"""

import collections
import pathlib

import jax
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Message: {field: (number, kind)}; a kind that is a message is repeated,
# unless it is given as 'one X'.
_MESSAGES = {
  'Space': {'planes': (1, 'Plane')},
  'Plane': {'name': (2, 'string'), 'events': (4, 'Entry')},
  'Entry': {'event': (2, 'one Event')},
  'Event': {'name': (2, 'string'), 'stats': (5, 'Stat')},
  'Stat': {'value': (6, 'bytes')},
  'Hlo': {'module': (1, 'one Module')},
  'Module': {'name': (1, 'string'), 'computations': (3, 'Computation')},
  'Computation': {'instructions': (2, 'Instruction')},
  'Instruction': {'name': (1, 'string'), 'metadata': (7, 'one Metadata')},
  'Metadata': {'op_name': (2, 'string')},
}


def _classes():
  file = descriptor_pb2.FileDescriptorProto(name='profile', package='profile')
  of = descriptor_pb2.FieldDescriptorProto
  plain = {'string': of.TYPE_STRING, 'bytes': of.TYPE_BYTES}
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


def scopes(path: pathlib.Path) -> dict[str, dict[str, str]]:
  """By program and instruction: the scope, such as `jit(biggest)/.../add`."""
  classes, found = _classes(), {}
  for plane in classes['Space'].FromString(path.read_bytes()).planes:
    if plane.name != '/host:metadata':
      continue
    for entry in plane.events:
      for stat in entry.event.stats:
        module = classes['Hlo'].FromString(stat.value).module
        # Another program of this process may have had the same name.
        found.setdefault(module.name, {}).update(
          (one.name, one.metadata.op_name)
          for computation in module.computations
          for one in computation.instructions
        )
  return found


def ran(path: pathlib.Path) -> collections.Counter:
  """How often each (program, instruction) ran."""
  counted = collections.Counter()
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      for event in line.events:
        stats = dict(event.stats)
        if 'hlo_op' in stats:
          counted[stats['hlo_module'], stats['hlo_op']] += 1
  return counted


def steps(path: pathlib.Path) -> list[int]:
  """Numbers of the training steps whose beginning is in the profile."""
  return sorted(
    int(dict(event.stats)['step_num'])
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes
    for line in plane.lines
    for event in line.events
    if event.name == 'train'
  )
