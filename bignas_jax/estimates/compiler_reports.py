"""Reports of the TPU compiler on programs, kept on disk between sessions.

A program that was compiled for devices that are only described cannot be loaded
from JAX's compilation cache. Its report can be kept, so that the program is
compiled only once.
"""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from bignas_jax.system import console, files, xla
from bignas_jax.values import schema

# Less than half the compile time, with the same memory and estimates that are
# the same within 2 % (docs/performance.md).
_OPTIONS = {'exec_time_optimization_effort': -1.0}


@dataclasses.dataclass(frozen=True)
class Report:
  """The compiler's report on one program, for one device.

  Attributes:
    compile_s: seconds that compilation took, when the program was compiled.
    peak_bytes: peak memory, bytes, with the program's arguments; None: the
      program did not fit.
    flops: number of operations.
    bytes: bytes moved to and from memory.
    seconds: the compiler's estimate of the run time, which counts the body of
      each loop once.
    problem: the compiler's error line if the program did not fit, else empty.
    kept: whether the report was read from disk and nothing was compiled.
  """

  compile_s: float
  peak_bytes: int | None
  flops: float = 0.0
  bytes: float = 0.0
  seconds: float = 0.0
  problem: str = ''
  kept: bool = False


def directory() -> epath.Path:
  """Returns the directory of reports, in JAX's cache or in the user's."""
  named = jax.config.values['jax_compilation_cache_dir']
  home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  place = named or os.path.join(home, 'bignas_jax')
  return epath.Path(place).expanduser() / 'figures'


def find(name: str, lowered: Any, mesh: Mesh) -> Report:
  """Returns the report on a program lowered for a mesh, and prints a summary.

  The report is read from disk if it is there. Otherwise the program is compiled
  and its report is written to disk.
  """
  key = _key(lowered, mesh)
  path = directory() / f'{key}.json'
  if path.exists():
    there = files.read_json(path) | {'kept': True}
    report = schema.convert(Report, there, f'{path}:')
  else:
    report = _compile(lowered)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, dataclasses.asdict(report))
  console.say(_line(name, report))
  return report


def _key(lowered: Any, mesh: Mesh) -> str:
  """Returns a digest of everything that determines the compiler's report."""
  devices = [(str(d), d.device_kind) for d in mesh.devices.flat]
  versions = jax.__version__, metadata.version('libtpu')
  form = [field.name for field in dataclasses.fields(Report)]
  asked = *versions, form, _OPTIONS, devices, lowered.as_text()
  return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _line(name: str, report: Report) -> str:
  if report.problem:
    return f'{name}: does not fit: {report.problem}'
  how = 'known' if report.kept else f'compiled in {report.compile_s:.0f} s'
  return f'{name}: {how}, {(report.peak_bytes or 0) / 2**30:.2f} GiB of its own'


def _compile(lowered: Any) -> Report:
  began = time.monotonic()
  try:
    compiled = lowered.compile(_OPTIONS)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    took = time.monotonic() - began
    return Report(took, None, problem=_memory_line(str(error)))
  return of(compiled, time.monotonic() - began)


def of(compiled: Any, compile_s: float = 0.0) -> Report:
  """Returns the report on a compiled program, of any compiler.

  Numbers that the compiler does not give are 0.
  """
  cost = compiled.cost_analysis() or {}
  return Report(
    compile_s,
    xla.peak_bytes(compiled),
    cost.get('flops', 0.0),
    cost.get('bytes accessed', 0.0),
    cost.get('optimal_seconds', 0.0),
  )


def counted(compiled: Mapping[str, Any]) -> dict[str, dict[str, float]]:
  """Returns the compiler's `flops` and `bytes` of each compiled program.

  The body of a loop counts once, and the operations inside a kernel that XLA
  did not make count nothing.
  """
  reports = {name: of(program) for name, program in compiled.items()}
  return {
    name: {'flops': report.flops, 'bytes': report.bytes}
    for name, report in reports.items()
  }


def _memory_line(text: str) -> str:
  """Returns the line about the memory that was wanted, or the first line."""
  lines = [line.strip() for line in text.splitlines()]
  return next((line for line in lines if 'hbm' in line.lower()), lines[0])
