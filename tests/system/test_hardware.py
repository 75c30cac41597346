"""What a machine says of itself, and what it does not."""

import os
import pathlib

import pytest

from bignas_jax.system import hardware, process


def test_peak_memory_is_what_the_kernel_counts():
  status = pathlib.Path('/proc/self/status')
  if not status.exists():
    pytest.skip('Linux shows it there')
  found = hardware.memory()['machine/host_peak_bytes']
  (line,) = [x for x in status.read_text().splitlines() if 'VmHWM' in x]
  assert found == pytest.approx(1024 * int(line.split()[1]), rel=0.02)


class _Device:
  """As much of a GPU as is asked here."""

  def __init__(self, peak):
    self._peak = peak

  def memory_stats(self):
    return {'peak_bytes_in_use': self._peak, 'bytes_in_use': 1}


def test_the_fullest_device_counts(monkeypatch):
  devices = [_Device(10), _Device(30)]
  monkeypatch.setattr(hardware.jax, 'local_devices', lambda: devices)
  assert hardware.memory()['machine/device_peak_bytes'] == 30


def test_cores_are_counted_where_the_system_does_not_say_which(monkeypatch):
  """macOS, for one."""
  assert 1 <= process.cores() <= (os.cpu_count() or 1)
  monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
  assert process.cores() == os.cpu_count()
