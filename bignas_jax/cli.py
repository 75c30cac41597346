"""What all commands share: arguments, results, errors, exit codes.

The result of a command is one JSON object on the last line of stdout; words
for a person go to stderr. A user's mistake is one line and status 2.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from etils import epath

from bignas_jax.system import (
  allocator,
  console,
  files,
  process,
  signals,
  storage,
)
from bignas_jax.values import annotations, errors, parsing

# How long a command may take to end after a signal, while Python is in a call
# that does not return, such as XLA's compiler. Kubernetes waits for 30 s.
_GRACE_S = 5


class Parser(argparse.ArgumentParser):
  """An argument parser whose complaints are one line."""

  def error(self, message: str) -> NoReturn:
    line = ' '.join(message.split())
    self.exit(errors.USER_ERROR, f'{self.prog}: {line} (see --help)\n')


def parser(module: str, description: str) -> Parser:
  """The parser of `python -m bignas_jax.MODULE`; no abbreviated options."""
  return Parser(
    prog=f'python -m bignas_jax.{module}',
    description=description,
    allow_abbrev=False,
  )


def path(text: str) -> epath.Path:
  """The type of arguments that name a file or a directory of a run."""
  try:
    return storage.path(text)
  except errors.UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


def add_data(parser: argparse.ArgumentParser) -> None:
  """Adds `--data`, for commands that read images of a run or a child."""
  parser.add_argument(
    '--data',
    default='',
    metavar='DIRECTORY',
    help='where the images are now, if they have moved',
  )


def number(kind: Any) -> Callable[[str], Any]:
  """The type of options that are numbers, such as `schema.Natural`."""

  def parse(text: str) -> Any:
    try:
      return parsing.value(kind, text, '')
    except errors.UserError as error:
      told = str(error).removeprefix(': ')
      raise argparse.ArgumentTypeError(told) from None

  return parse


def numbers(kind: Any) -> Callable[[str], list[Any]]:
  """The type of options that are several, such as `1,2,4`."""

  def parse(text: str) -> list[Any]:
    try:
      return [parsing.value(kind, part, '') for part in text.split(',')]
    except errors.UserError:
      allowed = f'{annotations.describe(kind)}, or several: 1,2,4'
      told = f'got {text!r}; allowed: {allowed}'
      raise argparse.ArgumentTypeError(told) from None

  return parse


def run(command: Callable[[Sequence[str]], dict[str, Any]]) -> NoReturn:
  """Runs a command with the process's arguments, and exits."""
  allocator.keep_memory()
  ended = errors.FAILED  # by an exception that goes on, with its traceback
  try:
    ended = status(command, sys.argv[1:])
  finally:
    if ended not in (0, errors.PREEMPTED):
      process.leave(ended)
  sys.exit(ended)


def status(
  command: Callable[[Sequence[str]], dict[str, Any]], arguments: Sequence[str]
) -> int:
  """Runs a command; prints its result or its error; returns its status.

  Of several processes the first prints the result.
  """
  try:
    with signals.raised(_stopped, errors.PREEMPTED, _GRACE_S):
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
