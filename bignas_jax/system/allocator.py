"""What a process tells the allocator under XLA."""

import ctypes
import sys

# mallopt(3); its names and their numbers are glibc's.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_memory() -> None:
  """Lets the process keep the memory that it frees, where glibc allocates.

  XLA allocates a program's scratch memory for each execution. On CPUs, glibc
  maps so large a block anew every time and the kernel clears each page when
  it is first written: a quarter of a step's time (docs/performance.md).

  Threads but the first still map blocks of more than 64 MB, which their arenas
  do not hold. MALLOC_ARENA_MAX=1 in the environment ends that too: big networks
  gain, small ones lose.
  """
  if not sys.platform.startswith('linux'):
    return
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:  # musl has none
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)  # never
