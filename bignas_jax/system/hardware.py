"""What this machine measures about itself: memory, clock rates, energy.

A value that the machine does not report is left out; nothing is estimated.
Energy is that of whole processors, even if other programs use them, too.
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


def clocks(cpuinfo: pathlib.Path = _CPUINFO) -> dict[str, float]:
  """Returns the mean clock rate of the CPUs and the slowest GPU's, in MHz.

  Only x86 CPUs report a clock rate.
  """
  lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
  cpus = [float(x.split(':')[1]) for x in lines if x.startswith('cpu MHz')]
  values = {'machine/cpu_mhz': sum(cpus) / len(cpus)} if cpus else {}
  gpus = _of_gpus(lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, 1))  # SM
  return values | ({'machine/gpu_mhz': float(min(gpus))} if gpus else {})


def cpu(cpuinfo: pathlib.Path = _CPUINFO) -> str:
  """Returns the model name of the CPU, or its architecture if it has none."""
  lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
  names = [x.split(':')[1].strip() for x in lines if x.startswith('model name')]
  return names[0] if names else platform.machine()


class Energy:
  """A counter of the joules that this machine's CPUs and the run's GPUs use.

  It starts when it is made. CPUs are read from a register (RAPL, through
  Linux's powercap) that starts over after about an hour of full load, so
  `joules` must be called more often than that.
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
    """Returns the joules so far, as far as readable, as `cpu` and `gpu`."""
    values = {}
    for i, zone in enumerate(self._zones):
      now = _integer(zone / 'energy_uj')
      used = now - self._last[i]
      if used < 0:
        used += _integer(zone / 'max_energy_range_uj')
      self._cpu_uj, self._last[i] = self._cpu_uj + used, now
      values['cpu'] = self._cpu_uj / 1e6
    before, now = self._gpu_mj, _gpu_millijoules()
    if before is not None and now is not None:
      values['gpu'] = (now - before) / 1e3
    return values


def _readable(path: pathlib.Path) -> bool:
  return os.access(path, os.R_OK)  # the register is root's on many machines


def _integer(path: pathlib.Path) -> int:
  return int(path.read_text())


def _gpu_millijoules() -> int | None:
  ask = 'nvmlDeviceGetTotalEnergyConsumption'
  counted = _of_gpus(lambda nvml, gpu: getattr(nvml, ask)(gpu))
  return sum(counted) if counted else None


def _of_gpus(ask: Callable[[Any, Any], int]) -> list[int]:
  """Returns one answer for each of the run's GPUs, or [] if one cannot answer.

  It uses nvidia-ml-py (the extra `cuda`). NVML numbers GPUs by their place on
  the bus; CUDA does so, too, if all GPUs are of one kind.
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
