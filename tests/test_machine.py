"""What a machine says of itself, and what it does not."""

import os
import pathlib
import sys
import types

import pytest

from bignas_jax.system import hardware, process


def _zone(directory, name, used, top=1000):
  directory.mkdir(parents=True)
  (directory / 'name').write_text(f'{name}\n')
  (directory / 'energy_uj').write_text(f'{used}\n')
  (directory / 'max_energy_range_uj').write_text(f'{top}\n')
  return directory / 'energy_uj'


def test_energy_of_cpus_goes_on_when_the_register_starts_over(tmp_path):
  first = _zone(tmp_path / 'intel-rapl:0', 'package-0', 900)
  second = _zone(tmp_path / 'intel-rapl:1', 'package-1', 0)
  part = _zone(tmp_path / 'intel-rapl:0:0', 'core', 0)
  whole = _zone(tmp_path / 'intel-rapl:2', 'psys', 0)
  energy = hardware.Energy(tmp_path)
  assert energy.joules() == {'cpu': 0}
  for counted_twice in (part, whole):
    counted_twice.write_text('500')
  first.write_text('950')
  second.write_text('7')
  assert energy.joules() == {'cpu': pytest.approx(57e-6)}
  first.write_text('30')  # 50 to the top, and 30
  assert energy.joules() == {'cpu': pytest.approx(137e-6)}


def test_no_register_no_figure(tmp_path):
  assert hardware.Energy(tmp_path / 'missing').joules() == {}


def test_clocks_are_read_where_they_are(tmp_path):
  path = tmp_path / 'cpuinfo'
  path.write_text('cpu MHz\t\t: 1000.5\nflags\t: x\ncpu MHz\t\t: 2000.5\n')
  assert hardware.clocks(path) == {'machine/cpu_mhz': 1500.5}
  assert hardware.clocks(tmp_path / 'missing') == {}


def test_peak_memory_is_what_the_kernel_counts():
  status = pathlib.Path('/proc/self/status')
  if not status.exists():
    pytest.skip('Linux shows it there')
  found = hardware.memory()['machine/host_peak_bytes']
  (line,) = [x for x in status.read_text().splitlines() if 'VmHWM' in x]
  assert found == pytest.approx(1024 * int(line.split()[1]), rel=0.02)


class _Device:
  """As much of a GPU as is asked here."""

  platform = 'gpu'

  def __init__(self, peak):
    self._peak = peak

  def memory_stats(self):
    return {'peak_bytes_in_use': self._peak, 'bytes_in_use': 1}


@pytest.fixture
def gpus(monkeypatch, tmp_path):
  """Three GPUs in the machine, of which the run has two; no hardware here."""

  class NVMLError(Exception):
    pass

  spent = {'0': 5000, '1': 6000, 'GPU-x': 7000}
  nvml = types.SimpleNamespace(
    NVMLError=NVMLError,
    nvmlInit=lambda: None,
    nvmlDeviceGetCount=lambda: 2,
    nvmlDeviceGetHandleByIndex=str,
    nvmlDeviceGetHandleByUUID=str,
    nvmlDeviceGetClockInfo=lambda gpu, which: {'0': 1800, '1': 900}[gpu],
    nvmlDeviceGetTotalEnergyConsumption=spent.__getitem__,
  )
  monkeypatch.setitem(sys.modules, 'pynvml', nvml)
  devices = [_Device(10), _Device(30)]
  monkeypatch.setattr(hardware.jax, 'local_devices', lambda: devices)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  return nvml, spent, tmp_path / 'missing'


def test_gpus_are_those_of_the_run(gpus, monkeypatch):
  _, spent, missing = gpus
  assert hardware.memory()['machine/device_peak_bytes'] == 30
  assert hardware.clocks(missing) == {'machine/gpu_mhz': 900}
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,GPU-x')
  energy = hardware.Energy(missing)
  spent.update({'0': 5500, '1': 9999, 'GPU-x': 8000})
  assert energy.joules() == {'gpu': 1.5}


def test_a_gpu_that_cannot_tell_leaves_no_figure(gpus):
  nvml, _, missing = gpus

  def refuses(*_):
    raise nvml.NVMLError('not supported')

  nvml.nvmlDeviceGetTotalEnergyConsumption = refuses
  assert hardware.Energy(missing).joules() == {}
  assert hardware.clocks(missing) == {'machine/gpu_mhz': 900}


def test_cores_are_counted_where_the_system_does_not_say_which(monkeypatch):
  """macOS, for one."""
  assert 1 <= process.cores() <= (os.cpu_count() or 1)
  monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
  assert process.cores() == os.cpu_count()
