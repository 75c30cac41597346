"""Make replaces no environment that it has not made."""

import pathlib
import shutil
import subprocess

import pytest
import tiny

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def clone(tmp_path):
  """A folder with all that `make .venv` reads, and a Python that does nothing.

  That Python only notes its arguments.
  """
  for name in ('Makefile', 'requirements.txt', 'setup.cfg', 'pyproject.toml'):
    shutil.copy(ROOT / name, tmp_path)
  python = tmp_path / 'python'
  python.write_text('#!/bin/sh\necho "$@" >> called\n')
  python.chmod(0o755)
  return tmp_path


def make(clone):
  """Returns what make printed on stderr, and whether it began to make one."""
  done = subprocess.run(
    ['make', '.venv', 'PYTHON=./python'],
    cwd=clone,
    env=tiny.environment(),
    capture_output=True,
    text=True,
  )
  assert done.returncode != 0  # there is no pip in what this Python makes
  return done.stderr, '-m venv --clear .venv' in (clone / 'called').read_text()


def test_an_environment_of_someone_else_is_kept(clone):
  (clone / '.venv').mkdir()
  (clone / '.venv/kept').touch()
  refusal, begun = make(clone)
  assert 'move it away' in refusal and not begun


def test_what_a_link_leads_to_is_kept(clone):
  (clone / 'other').mkdir()
  (clone / 'other/.ready').touch()
  (clone / '.venv').symlink_to('other')
  subprocess.run(['touch', '-d', '2000-01-01', clone / 'other/.ready'])
  refusal, begun = make(clone)
  assert 'move it away' in refusal and not begun


@pytest.mark.parametrize('mark', ['', '.made_by_make', '.ready'])
def test_a_missing_or_an_unfinished_environment_is_made(clone, mark):
  if mark:
    (clone / '.venv').mkdir()
    (clone / '.venv' / mark).touch()
    subprocess.run(['touch', '-d', '2000-01-01', clone / '.venv' / mark])
  refusal, begun = make(clone)
  assert begun and 'move it away' not in refusal
