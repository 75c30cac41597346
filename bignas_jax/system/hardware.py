"""What this machine says of itself: memory, clocks, energy.

What it does not say is absent; nothing is estimated. Energy is that of whole
processors, whoever else uses them.
"""

import os
import pathlib
import platform
import resource
import sys
from collections.abc import Callable
from typing import Any

import jax

_POWERCAP = pathlib.Path('/sys/class/powercap')
_CPUINFO = pathlib.Path('/proc/cpuinfo')


def memory() -> dict[str, float]:
  """Peak bytes so far: of this process, and of its fullest device.

  CPUs have no memory of their own, and no second figure.
  """
  # macOS counts in bytes, all others in KiB.
  unit = 1 if sys.platform == 'darwin' else 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  found = {'machine/host_peak_bytes': float(peak)}
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  if peaks:
    found['machine/device_peak_bytes'] = float(max(peaks))
  return found


def clocks(cpuinfo: pathlib.Path = _CPUINFO) -> dict[str, float]:
  """MHz: the mean of the CPUs, as x86's tell, and of the slowest GPU."""
  lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
  cpus = [float(x.split(':')[1]) for x in lines if x.startswith('cpu MHz')]
  found = {'machine/cpu_mhz': sum(cpus) / len(cpus)} if cpus else {}
  gpus = _of_gpus(lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, 1))  # SM
  return found | ({'machine/gpu_mhz': float(min(gpus))} if gpus else {})


def cpu(cpuinfo: pathlib.Path = _CPUINFO) -> str:
  """What the CPU calls itself, or its architecture."""
  lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
  names = [x.split(':')[1].strip() for x in lines if x.startswith('model name')]
  return names[0] if names else platform.machine()


class Energy:
  """Joules since it was made, of this machine's CPUs and the run's GPUs.

  CPUs count in a register that starts over after an hour or so of hard work
  (RAPL, through Linux's powercap): ask more often.
  """

  def __init__(self, powercap: pathlib.Path = _POWERCAP):
    # Packages only: their parts are counted in them, and the platform's
    # counter (psys) holds them again.
    self._zones = [
      zone
      for zone in sorted(powercap.glob('*-rapl:*'))
      if zone.name.count(':') == 1
      and _readable(zone / 'energy_uj')
      and (zone / 'name').read_text().startswith('package')
    ]
    self._last = [_integer(zone / 'energy_uj') for zone in self._zones]
    self._cpu_uj = 0
    self._gpu_mj = _gpu_millijoules()

  def joules(self) -> dict[str, float]:
    """`cpu` and `gpu`, as far as they can be read."""
    found = {}
    for i, zone in enumerate(self._zones):
      now = _integer(zone / 'energy_uj')
      used = now - self._last[i]
      if used < 0:
        used += _integer(zone / 'max_energy_range_uj')
      self._cpu_uj, self._last[i] = self._cpu_uj + used, now
      found['cpu'] = self._cpu_uj / 1e6
    before, now = self._gpu_mj, _gpu_millijoules()
    if before is not None and now is not None:
      found['gpu'] = (now - before) / 1e3
    return found


def _readable(path: pathlib.Path) -> bool:
  return os.access(path, os.R_OK)  # the register is root's on many machines


def _integer(path: pathlib.Path) -> int:
  return int(path.read_text())


def _gpu_millijoules() -> int | None:
  ask = 'nvmlDeviceGetTotalEnergyConsumption'
  counted = _of_gpus(lambda nvml, gpu: getattr(nvml, ask)(gpu))
  return sum(counted) if counted else None


def _of_gpus(ask: Callable[[Any, Any], int]) -> list[int]:
  """An answer of each of the run's GPUs, or none if one cannot tell.

  Asked through nvidia-ml-py (the extra `cuda`). NVML counts GPUs by their
  place on the bus, which is CUDA's order too where they are of one kind.
  """
  if jax.local_devices()[0].platform != 'gpu':
    return []
  try:
    import pynvml as nvml  # pyright: ignore[reportMissingImports]
  except ImportError:
    return []
  try:
    nvml.nvmlInit()
    chosen = os.environ.get('CUDA_VISIBLE_DEVICES')
    if chosen is None:
      names = list(map(str, range(nvml.nvmlDeviceGetCount())))
    else:
      names = [name.strip() for name in chosen.split(',') if name.strip()]
    return [
      ask(
        nvml,
        nvml.nvmlDeviceGetHandleByIndex(int(name))
        if name.isdecimal()
        else nvml.nvmlDeviceGetHandleByUUID(name),
      )
      for name in names
    ]
  except nvml.NVMLError:
    return []  # too old a GPU or driver, or not NVIDIA's
