"""What a process frees, it keeps: counted in the kernel's page faults."""

import os
import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys, threading
from bignas_jax.system import allocator

def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def fill():
  return len(b'x' * 2**28)

def work():
  fill()
  before = faults()
  fill()
  print(faults() - before)

if sys.argv[2] == 'kept':
  allocator.keep_memory()
if sys.argv[1] == 'main':
  work()
else:
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
"""


def page_faults(*arguments, **environment) -> int:
  """Of 256 MB that were written, freed and written again."""
  command = [sys.executable, '-c', _SCRIPT, *arguments]
  env = os.environ | environment
  return int(subprocess.check_output(command, text=True, env=env))


@pytest.mark.skipif(sys.platform != 'linux', reason='only glibc is told')
@pytest.mark.parametrize('thread', ['main', 'another'])
def test_memory_is_kept(thread):
  """XLA runs programs in threads of its own."""
  kept = page_faults(thread, 'kept', MALLOC_ARENA_MAX='1')
  assert kept < page_faults(thread, 'not') / 10
