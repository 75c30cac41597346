"""Functions that die, as a process that is killed at one of its steps."""

import itertools


class Killed(BaseException):
  """What no code under test catches."""


def at(step):
  """A wrapper of functions; their calls die from the `step`-th one on."""
  calls = itertools.count()

  def dying(function):
    def act(*arguments, **named):
      if next(calls) >= step:
        raise Killed
      return function(*arguments, **named)

    return act

  return dying
