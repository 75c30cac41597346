"""Settings of the C library's memory allocator that suit XLA."""

import ctypes
import sys

# mallopt(3); its names and their numbers are glibc's.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_memory() -> None:
  """Makes glibc keep freed memory for reuse instead of returning it to Linux.

  Without glibc, nothing changes. XLA allocates a program's scratch memory for
  each execution. By default, glibc maps such a large block anew each time, and
  the kernel clears each page when it is first written. On CPUs that takes a
  quarter of a step's time (docs/performance.md).

  Only the first thread profits fully: other threads still map blocks of more
  than 64 MB, because their arenas cannot hold them. MALLOC_ARENA_MAX=1 in the
  environment ends that, too: big networks get faster, small ones slower.
  """
  if not sys.platform.startswith('linux'):
    return
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:  # musl has none
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)  # never
