"""What this machine says of itself: its memory, its CPU, its GPU."""

import functools
import pathlib
import platform
import resource
import sys

import jax

_CPUINFO = pathlib.Path('/proc/cpuinfo')


def memory() -> dict[str, float]:
  """Returns the peak memory so far, in bytes, of the process and of a device.

  The device is the local one with the highest peak. CPU devices have no memory
  of their own, so there the second figure is missing.
  """
  # macOS counts in bytes, all others in KiB.
  unit = 1 if sys.platform == 'darwin' else 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  values = {'machine/host_peak_bytes': float(peak)}
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  if peaks:
    values['machine/device_peak_bytes'] = float(max(peaks))
  return values


def cpu(cpuinfo: pathlib.Path = _CPUINFO) -> str:
  """Returns the model name of the CPU, or its architecture if it has none."""
  lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
  names = [x.split(':')[1].strip() for x in lines if x.startswith('model name')]
  return names[0] if names else platform.machine()


@functools.cache
def has_triton() -> bool:
  """Returns whether Triton kernels run here: on NVIDIA's Ampere and newer."""
  if jax.default_backend() != 'gpu':
    return False
  capability = getattr(jax.devices()[0], 'compute_capability', '0')
  return float(capability) >= 8
