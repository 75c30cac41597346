"""Which errors mean that another process of the run is lost."""

import sys
import types

import pytest

from bignas_jax.system import process
from bignas_jax.values import errors


@pytest.fixture
def joined(monkeypatch):
  monkeypatch.setattr(process, '_index', 1)


LOST = 'DEADLINE_EXCEEDED: Barrier timed out', 'Gloo all-reduce failed'
OURS = 'RESOURCE_EXHAUSTED: of %optimization_barrier.3', "KeyError: 'stem'"


@pytest.mark.parametrize('text', LOST)
def test_an_error_of_the_connection_is_a_lost_process(joined, text):
  assert process.out_of_reach(RuntimeError(text)) == text


@pytest.mark.parametrize('text', OURS)
def test_another_error_is_not(joined, text):
  assert not process.out_of_reach(RuntimeError(text))


def test_a_cause_counts_and_a_mistake_of_a_person_does_not(joined):
  cause = RuntimeError(LOST[0])
  outer = ValueError('a step failed')
  outer.__cause__, cause.__cause__ = cause, outer  # and a loop ends
  assert process.out_of_reach(outer) == LOST[0]
  assert not process.out_of_reach(errors.UserError('Barrier', 1, 'Gloo'))


def test_a_process_alone_loses_none():
  assert not process.out_of_reach(RuntimeError(LOST[0]))


def test_only_a_closed_loop_is_not_told(monkeypatch):
  told = []
  monkeypatch.setattr(sys, 'unraisablehook', told.append)
  for _ in range(2):
    process.ignore_closed_loops()
  named = lambda error: types.SimpleNamespace(exc_value=error)  # noqa: E731
  sys.unraisablehook(named(RuntimeError('Event loop is closed')))
  others = RuntimeError('other'), ValueError('Event loop is closed'), None
  for error in others:
    sys.unraisablehook(named(error))
  assert tuple(one.exc_value for one in told) == others
