"""Pickles as data: their values are built, and nothing in them is ever called.

Python's own unpickler imports and calls what a pickle names, so that whoever
wrote the file runs code on the reader's machine. Here classes and functions
stay names, calls of them stay descriptions of calls, and an opcode that no
plain value needs ends the reading.
"""

import dataclasses
import pickletools
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

_MARK = object()  # where a list of arguments begins on the stack
# What may be a key: hashing anything else may take any time or depth.
_KEYS = (str, bytes, int, float, type(None))
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'MARK': _MARK}
# Opcodes whose argument is a value.
_VALUES = {
  *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4'),
  *('FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING', 'SHORT_BINSTRING'),
  *('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
  *('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8'),
}
_EMPTY = {'EMPTY_LIST': list, 'EMPTY_DICT': dict, 'EMPTY_SET': list}
_TUPLES = {'EMPTY_TUPLE': 0, 'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_PUTS = {'PUT', 'BINPUT', 'LONG_BINPUT'}
_GETS = {'GET', 'BINGET', 'LONG_BINGET'}
_IGNORED = {'PROTO', 'FRAME', 'STOP'}
# Opcodes with a method of `_Reader`, such as `_append`.
_METHODS = {
  *('POP', 'POP_MARK', 'DUP', 'MEMOIZE', 'LIST', 'APPEND', 'APPENDS', 'TUPLE'),
  *('DICT', 'SETITEM', 'SETITEMS', 'FROZENSET', 'ADDITEMS', 'GLOBAL', 'OBJ'),
  *('STACK_GLOBAL', 'REDUCE', 'NEWOBJ', 'NEWOBJ_EX', 'INST', 'BUILD'),
  *('PERSID', 'BINPERSID'),
}
# What damage makes `pickletools` or a `_Reader` raise.
_DAMAGED = ValueError, LookupError, TypeError, OverflowError, DeprecationWarning


class Wrong(ValueError):
  """A pickle that is damaged, or holds what no plain value needs."""


class Name(NamedTuple):
  """A class or a function that a pickle names; it is not imported."""

  module: str
  name: str

  def __str__(self) -> str:
    return f'{self.module}.{self.name}'


@dataclasses.dataclass(eq=False)
class Call:
  """A call that a pickle asks for, or an object that it describes.

  Attributes:
    function: what it would call.
    arguments: what it would be called with.
    state: what the result's attributes would be set from; None: nothing.
  """

  function: Any
  arguments: Any
  state: Any = None


def load(
  file: BinaryIO,
  persistent: Callable[[Any], Any] | None = None,
  call: Callable[[Call], Any] = lambda call: call,
) -> Any:
  """Returns the value of a pickle; the file is read up to the pickle's end.

  Sets are returned as lists, and byte arrays as they are.

  Args:
    file: a file in memory, so that a wrong length reserves no memory.
    persistent: function from a persistent identifier to its value; None: they
      are not allowed.
    call: function from a described call to the value that stands for it.

  Raises:
    Wrong: the pickle is damaged, or has an opcode that plain values do not
      need.
  """
  reader = _Reader(persistent, call)
  try:
    with warnings.catch_warnings():
      # Of a text with an escape that Python never writes.
      warnings.simplefilter('error', DeprecationWarning)
      for opcode, argument, _ in pickletools.genops(file):
        reader.step(opcode.name, argument)
    return reader.result()
  except _DAMAGED as error:
    if isinstance(error, Wrong):
      raise
    raise Wrong(f'a damaged pickle ({error})') from None


class _Reader:
  """The stack and the memo of one pickle."""

  def __init__(self, persistent, call):
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}
    self._persistent, self._call = persistent, call

  def result(self) -> Any:
    (value,) = self._last(len(self._stack))
    return value

  def step(self, name: str, argument: Any) -> None:
    """Carries out one opcode."""
    if name in _CONSTANTS:
      self._stack.append(_CONSTANTS[name])
    elif name in _VALUES:
      self._stack.append(argument)
    elif name in _EMPTY:
      self._stack.append(_EMPTY[name]())
    elif name in _TUPLES:
      self._stack.append(tuple(self._last(_TUPLES[name])))
    elif name in _PUTS:
      self._memo[argument] = self._stack[-1]
    elif name in _GETS:
      self._stack.append(self._memo[argument])
    elif name in _METHODS:
      method = getattr(self, f'_{name.lower()}')
      method() if argument is None else method(argument)
    elif name not in _IGNORED:
      raise Wrong(f'the opcode {name}')

  def _last(self, n: int) -> list[Any]:
    """Takes the last n values from the stack."""
    if n > len(self._stack):
      raise Wrong('a damaged pickle (its stack is empty)')
    values = self._stack[len(self._stack) - n :]
    del self._stack[len(self._stack) - n :]
    if any(value is _MARK for value in values):
      raise Wrong('a damaged pickle (a mark is taken for a value)')
    return values

  def _marked(self) -> list[Any]:
    """Takes the values after the last mark, and the mark, from the stack."""
    at = len(self._stack) - 1
    while at >= 0 and self._stack[at] is not _MARK:
      at -= 1
    if at < 0:
      raise Wrong('a damaged pickle (a mark is missing)')
    values = self._stack[at + 1 :]
    del self._stack[at:]
    return values

  def _top(self, kind: type) -> Any:
    """Returns the last value of the stack, which must be of this kind."""
    if not self._stack or not isinstance(self._stack[-1], kind):
      raise Wrong(f'a damaged pickle (no {kind.__name__} to add to)')
    return self._stack[-1]

  def _memoize(self) -> None:
    self._memo[len(self._memo)] = self._stack[-1]

  def _dup(self) -> None:
    self._stack.append(self._stack[-1])

  def _pop(self) -> None:
    self._stack.pop()

  def _pop_mark(self) -> None:
    self._marked()

  def _list(self) -> None:
    self._stack.append(self._marked())

  def _tuple(self) -> None:
    self._stack.append(tuple(self._marked()))

  _frozenset = _list

  def _append(self) -> None:
    values = self._last(1)
    self._top(list).extend(values)

  def _appends(self) -> None:
    values = self._marked()
    self._top(list).extend(values)

  _additems = _appends

  def _dict(self) -> None:
    values = self._marked()
    self._stack.append({})
    self._set(values)

  def _setitem(self) -> None:
    self._set(self._last(2))

  def _setitems(self) -> None:
    self._set(self._marked())

  def _set(self, values: list[Any]) -> None:
    target = self._top(dict)
    for key, value in zip(values[::2], values[1::2], strict=True):
      if not isinstance(key, _KEYS):
        raise Wrong(f'a key of type {type(key).__name__}')
      target[key] = value

  def _global(self, argument: str) -> None:
    module, _, name = argument.partition(' ')
    self._stack.append(Name(module, name))

  def _stack_global(self) -> None:
    module, name = self._last(2)
    if not isinstance(module, str) or not isinstance(name, str):
      raise Wrong('a damaged pickle (a name is no text)')
    self._stack.append(Name(module, name))

  def _reduce(self) -> None:
    self._stack.append(self._call(Call(*self._last(2))))

  _newobj = _reduce

  def _newobj_ex(self) -> None:
    function, arguments, named = self._last(3)
    self._stack.append(self._call(Call(function, (arguments, named))))

  def _obj(self) -> None:
    function, *arguments = self._marked()
    self._stack.append(self._call(Call(function, tuple(arguments))))

  def _inst(self, argument: str) -> None:
    name = Name(*argument.split(' ', 1))
    self._stack.append(self._call(Call(name, tuple(self._marked()))))

  def _build(self) -> None:
    """Keeps an object's state; of other values, such as dicts, it is left."""
    (state,) = self._last(1)
    if self._stack and isinstance(self._stack[-1], Call):
      self._stack[-1].state = state

  def _binpersid(self) -> None:
    (identifier,) = self._last(1)
    self._persid(identifier)

  def _persid(self, identifier: Any) -> None:
    if self._persistent is None:
      raise Wrong('a persistent identifier')
    self._stack.append(self._persistent(identifier))
