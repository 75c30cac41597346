"""What all commands share: arguments, results, errors, exit codes.

The result of a command is one JSON object on the last line of stdout; words
for a person go to stderr. A user's mistake is one line and status 2.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from bignas_jax import allocator, errors

FAILED = 1
USER_ERROR = 2
PREEMPTED = 75


class Preempted(Exception):
  """The run was asked to stop, and has saved its state."""


class Failed(Exception):
  """The answer is no: the reason for a person, and the result in full."""

  def __init__(self, reason: str, result: dict[str, Any]):
    super().__init__(reason)
    self.result = result


class Parser(argparse.ArgumentParser):
  """An argument parser whose complaints are one line."""

  def error(self, message: str) -> NoReturn:
    self.exit(USER_ERROR, f'{self.prog}: {message} (see --help)\n')


def parser(module: str, description: str) -> Parser:
  """The parser of `python -m bignas_jax.MODULE`; no abbreviated options."""
  return Parser(
    prog=f'python -m bignas_jax.{module}',
    description=description,
    allow_abbrev=False,
  )


def run(command: Callable[[Sequence[str]], dict[str, Any]]) -> NoReturn:
  """Runs a command with the process's arguments, and exits."""
  allocator.keep_memory()
  sys.exit(status(command, sys.argv[1:]))


def status(
  command: Callable[[Sequence[str]], dict[str, Any]], arguments: Sequence[str]
) -> int:
  """Runs a command; prints its result or its error; returns its status."""
  try:
    result = command(arguments)
  except errors.UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return USER_ERROR
  except Preempted as event:
    print(f'stopped: {event}', file=sys.stderr)
    return PREEMPTED
  except Failed as answer:
    print(f'error: {answer}', file=sys.stderr)
    print(json.dumps(answer.result), flush=True)
    return FAILED
  print(json.dumps(result), flush=True)
  return 0


class StopRequest:
  """Turns SIGTERM and SIGINT into a flag that a loop asks for."""

  def __enter__(self) -> 'StopRequest':
    self.requested = False
    self._before = {
      number: signal.signal(number, self._note)
      for number in (signal.SIGTERM, signal.SIGINT)
    }
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: object) -> None:
    del number, frame
    self.requested = True
