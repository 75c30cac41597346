"""Programs are compiled side by side, kept, and found again."""

import os
import pathlib
import threading

import jax
import jax.numpy as jnp
import pytest
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from bignas_jax.system import process, xla


def test_what_cannot_be_compiled_is_said_at_once(monkeypatch):
  """Not after what is being compiled; what has not begun, never is."""
  monkeypatch.setattr(process, 'cores', lambda: 2)
  go_on, begun = threading.Event(), []

  def finish(name, lowered):
    begun.append(name)
    if name == 'wrong':
      raise ValueError(f'{lowered} does not fit')
    assert go_on.wait(60)

  names = 'slow', 'wrong', 'slow too', 'last'
  lower = {name: lambda name=name: name for name in names}
  try:
    with pytest.raises(ValueError, match='wrong does not fit'):
      xla.compile_all(lower, finish)
    assert 'last' not in begun
  finally:
    go_on.set()


def test_what_cannot_be_traced_stops_the_rest():
  go_on, begun = threading.Event(), []

  def finish(name, lowered):
    begun.append(name)
    assert go_on.wait(60)

  def untraceable():
    raise TypeError('no such shape')

  try:
    with pytest.raises(TypeError, match='no such shape'):
      lower = {'slow': lambda: 1, 'wrong': untraceable, 'last': lambda: 1}
      xla.compile_all(lower, finish)
    assert begun in ([], ['slow'])
  finally:
    go_on.set()


def test_options_that_xla_does_not_know_are_left_out(monkeypatch):
  options = {'xla_backend_optimization_level': 1, 'xla_no_such_option': True}
  monkeypatch.setattr(xla, '_OPTIONS', {'cpu': options})
  known = {'xla_backend_optimization_level': 1}
  assert xla.compiler_options('cpu') == known
  assert xla.compiler_options('tpu') == {}


def test_results_keep_their_names():
  lower = {name: lambda name=name: 2 * name for name in range(20)}
  found = xla.compile_all(lower, lambda name, lowered: (name, lowered))
  assert found == {name: (name, 2 * name) for name in range(20)}


@pytest.fixture
def place(monkeypatch):
  """For a cache of compiled programs; takes back what is configured."""
  options = {
    name: jax.config.values[name]
    for name in (
      'jax_compilation_cache_dir',
      'jax_persistent_cache_min_compile_time_secs',
      'jax_persistent_cache_enable_xla_caches',
    )
  }
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)

  def keep(directory):
    jax.config.update('jax_compilation_cache_dir', None)
    xla.keep_programs(epath.Path(directory))
    compilation_cache.reset_cache()

  yield keep
  for name, value in options.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def entries(directory):
  return {path.name for path in pathlib.Path(directory).glob('*-cache')}


def test_programs_are_found_again_however_their_place_is_spelt(
  place, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  spellings = 'kept', './kept', str(tmp_path / 'kept'), 'kept/../kept'
  found = []
  for spelling in spellings:
    place(spelling)
    jax.clear_caches()
    jax.jit(lambda x: jnp.sin(x) + 1).lower(1.0).compile()
    found.append(entries('kept'))
  assert len(found[0]) == 1 and found == [found[0]] * len(spellings)
  # And when it has moved.
  os.rename('kept', 'moved')
  place('moved')
  jax.clear_caches()
  jax.jit(lambda x: jnp.sin(x) + 1).lower(1.0).compile()
  assert entries('moved') == found[0]


def test_what_another_process_may_be_writing_stays(place, tmp_path):
  torn = tmp_path / 'a-cache'
  torn.write_bytes(b'\x78')
  place(tmp_path)  # the first one here
  assert not torn.exists()
  torn.write_bytes(b'\x78')
  place(tmp_path)
  assert torn.exists()


def test_programs_in_a_place_that_cannot_be_written_are_read(place, tmp_path):
  (tmp_path / 'file').touch()
  place(tmp_path / 'file' / 'compiled')
