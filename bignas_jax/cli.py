"""What all commands share: flags, results, errors, exit statuses.

The result of a command is one JSON object on the last line of stdout; messages
for a person go to stderr. A user's mistake is one line and status 2.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from absl import app, flags

from bignas_jax.deploy import hub
from bignas_jax.system import (
  allocator,
  console,
  files,
  process,
  signals,
  storage,
)
from bignas_jax.values import errors, help_text, parsing, schema

# `--help` names a command's own module, whichever function defined a flag.
flags.disclaim_key_flags()

# How long a command may take to end after a signal, while Python is in a call
# that does not return, such as XLA's compiler. Kubernetes waits for 30 s.
_GRACE_S = 5

# The two ends of a limit on a cost, in names of flags and in words.
_ENDS = {'max': 'at most so many', 'min': 'at least so many'}

Command = Callable[[Sequence[str]], dict[str, Any]]
Define = Callable[[flags.FlagValues], None]
Parse = Callable[[flags.FlagValues, Sequence[str]], list[str]]


def _parse(values: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
  """Parses flags, and returns the arguments that are none."""
  _, *rest = values(['', *arguments])
  return rest


def parse(
  command: str,
  description: str,
  define: Define,
  arguments: Sequence[str],
  parse: Parse = _parse,
) -> Any:
  """Returns the values of a command's flags, as attributes.

  Each call has a FlagValues of its own: absl's global one would hold the flags
  of every command that a process imports.

  Args:
    command: name as in `python -m bignas_jax.COMMAND`.
    description: description of the command, for `--help`.
    define: defines the command's flags.
    arguments: arguments of the command, without its name.
    parse: parses the flags; `config_file.parse`, where a config is among them.

  Raises:
    UserError: a flag or the config is wrong.
    SystemExit: with status 0, after `--help`.
  """
  values = flags.FlagValues()
  values.set_gnu_getopt(True)
  define(values)
  if {'--help', '-help', '-h'} & {*arguments}:
    print(f'usage: python -m bignas_jax.{command} [--FLAG=VALUE ...]\n')
    of_flags = values.get_help(include_special_flags=False)
    print(help_text.layout(description, of_flags))
    sys.exit(0)
  try:
    rest = parse(values, arguments)
  except flags.Error as error:
    raise parsing.of_flag(command, error) from None
  if rest:
    allowed = f'only flags, --NAME=VALUE (see {command} --help)'
    raise errors.UserError(command, ' '.join(rest), allowed)
  return values


def path(
  values: flags.FlagValues,
  name: str,
  words: str,
  required: bool = False,
  make: Callable[[str], Any] = storage.path,
  several: bool = False,
) -> None:
  """Defines a flag that names a file or a directory.

  Args:
    values: flag values of the command.
    name: name of the flag.
    words: description for `--help`.
    required: whether the command needs it.
    make: takes text; `pathlib.Path`, where buckets are not allowed.
    several: whether it may be given again and again; its value is a list.
  """
  if several:
    parsers = parsing.PathParser(name, make), flags.ArgumentSerializer()
    flags.DEFINE_multi(*parsers, name, None, words, flag_values=values)
    return
  flags.DEFINE(
    *(parsing.PathParser(name, make), name, None, _words(words, required)),
    flag_values=values,
    required=required,
  )


def _words(words: str, required: bool) -> str:
  return f'{words} (required)' if required else words


def child(values: flags.FlagValues, required: bool = False) -> None:
  """Defines `--child`, for commands that read a child package."""
  words = 'a child package: a directory, or hf://OWNER/NAME[@REVISION]'
  path(values, 'child', words, required, hub.path)


def text(
  values: flags.FlagValues,
  name: str,
  default: str | None,
  words: str,
  required: bool = False,
) -> None:
  """Defines a flag that is text."""
  flags.DEFINE(
    *(flags.ArgumentParser(), name, default, _words(words, required)),
    flag_values=values,
    required=required,
  )


def boolean(values: flags.FlagValues, name: str, words: str) -> None:
  """Defines a flag that is off unless it is given."""
  flags.DEFINE_boolean(name, False, words, flag_values=values)


def one_of(
  values: flags.FlagValues, *names: str, required: bool = False
) -> None:
  """Allows only one of several flags."""
  flags.mark_flags_as_mutual_exclusive(
    names, required=required, flag_values=values
  )


def number(
  values: flags.FlagValues,
  kind: Any,
  name: str,
  default: Any,
  words: str,
  several: bool = False,
) -> None:
  """Defines a flag of an annotated type, such as `schema.Natural`.

  Args:
    values: flag values of the command.
    kind: annotation of the type.
    name: name of the flag.
    default: default value, or its text; None: none.
    words: description for `--help`.
    several: whether it takes a list, such as `1,2,4`.
  """
  parser = parsing.Parser(kind, several)
  flags.DEFINE(parser, name, default, words, flag_values=values)


def data(values: flags.FlagValues) -> None:
  """Defines `--data`, for commands that read images of a run or a child."""
  words = 'a directory: where the images are now, if they have moved'
  flags.DEFINE_string('data', '', words, flag_values=values)


def limits(
  values: flags.FlagValues, costs: Mapping[str, str], precisions: Iterable[str]
) -> None:
  """Defines limits on costs, and how the cost `memory_bytes` is computed.

  Args:
    values: flag values of the command.
    costs: each cost and its unit.
    precisions: allowed values of `--memory_precision`.
  """
  parsers = parsing.Parser(float), flags.ArgumentSerializer()
  for bound in _bounds(costs):
    end, _, name = bound.partition('_')
    words = f'{_ENDS[end]} {costs[name]}'
    flags.DEFINE_multi(*parsers, bound, None, words, flag_values=values)
  words = 'images at a time, for limits on memory_bytes'
  number(values, schema.Natural, 'memory_batch', 1, words)
  words = 'of weights and activations, for memory_bytes: '
  words += ', '.join(precisions)
  text(values, 'memory_precision', 'float32', words)


def bounds(given: Any, costs: Iterable[str]) -> dict[str, list[float] | None]:
  """Returns the values of each limit, such as {'max_macs': [1e6]}."""
  return {bound: given[bound].value for bound in _bounds(costs)}


def _bounds(costs: Iterable[str]) -> list[str]:
  """Returns the names of the limits' flags, such as `max_macs`."""
  return [f'{end}_{name}' for name in costs for end in _ENDS]


def run(command: Command, keeps_memory: bool = True) -> NoReturn:
  """Runs a command with the process's arguments, and exits.

  Args:
    command: the command.
    keeps_memory: whether freed memory is kept for reuse, which suits XLA.
  """
  if keeps_memory:
    allocator.keep_memory()

  def main(argv: list[str]) -> int:
    ended = errors.FAILED  # if an exception propagates, with its traceback
    try:
      ended = status(command, argv[1:])
    finally:
      if ended not in (0, errors.PREEMPTED):
        process.leave(ended)
    return ended

  app.run(main, flags_parser=_leave_to_command)
  raise AssertionError('absl exits')


def _leave_to_command(argv: list[str]) -> list[str]:
  """Marks absl's global flags as parsed; a command parses its own.

  It lets libraries log warnings only: absl would show Orbax's long messages.
  """
  flags.FLAGS([*argv[:1], '--verbosity=-1'])
  return argv


def status(command: Command, arguments: Sequence[str]) -> int:
  """Runs a command; prints its result or its error; returns its status.

  Of several processes the first prints the result.
  """
  try:
    stopping = signals.raised(_stopped, errors.PREEMPTED, _GRACE_S)
    with stopping, process.exiting_with_the_others():
      result = command(arguments)
  except errors.UserError as error:
    console.say(f'error: {error}')
    return errors.USER_ERROR
  except errors.Preempted as event:
    console.say(f'stopped: {event}')
    return errors.PREEMPTED
  except errors.Failed as answer:
    console.say(f'error: {answer}')
    _print(answer.result)
    return errors.FAILED
  except OSError as error:
    if not files.of_place(error):
      raise
    console.say(f'error: {error.filename}: {error.strerror}')
    return errors.FAILED
  _print(result)
  return 0


def _stopped(name: str) -> errors.Preempted:
  return errors.Preempted(f'by {name}; what was finished is kept, start again')


def _print(result: dict[str, Any]) -> None:
  if process.leads():
    print(json.dumps(files.finite(result), allow_nan=False), flush=True)
