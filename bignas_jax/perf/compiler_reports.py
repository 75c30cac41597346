"""What the TPU compiler says of a program, and says only once.

Compiled for devices that are described, not there, a program cannot be read
back from JAX's cache; its figures can.
"""

import dataclasses
import hashlib
import json
import os
import time
from importlib import metadata
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from bignas_jax.system import console, files, xla
from bignas_jax.values import schema

# Less than half the time to compile, for the same memory and, within 2 %, the
# same estimates (docs/performance.md).
_OPTIONS = {'exec_time_optimization_effort': -1.0}


@dataclasses.dataclass(frozen=True)
class Figures:
  """Of one program, on one device.

  Attributes:
    compile_s: seconds it took, when it was compiled.
    peak_bytes: of memory, those of its arguments included; None: it did not
      fit.
    flops: operations.
    bytes: moved to and from memory.
    seconds: by the compiler; each loop's body once.
    problem: the compiler's line, where the program did not fit.
    kept: from an earlier time, not compiled now.
  """

  compile_s: float
  peak_bytes: int | None
  flops: float = 0.0
  bytes: float = 0.0
  seconds: float = 0.0
  problem: str = ''
  kept: bool = False


def directory() -> epath.Path:
  """Where figures are kept: JAX's cache, if named, or the user's."""
  named = jax.config.values['jax_compilation_cache_dir']
  home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  where = named or os.path.join(home, 'bignas_jax')
  return epath.Path(where).expanduser() / 'figures'


def find(name: str, lowered: Any, where: Mesh) -> Figures:
  """Those of a program lowered for a mesh: kept ones, or the compiler's."""
  key = _key(lowered, where)
  path = directory() / f'{key}.json'
  if path.exists():
    there = files.read_json(path) | {'kept': True}
    found = schema.convert(Figures, there, f'{path}:')
  else:
    found = _compile(lowered)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, dataclasses.asdict(found))
  console.say(_line(name, found))
  return found


def _key(lowered: Any, where: Mesh) -> str:
  """Names all that the compiler goes by."""
  devices = [(str(d), d.device_kind) for d in where.devices.flat]
  versions = jax.__version__, metadata.version('libtpu')
  form = [field.name for field in dataclasses.fields(Figures)]
  asked = *versions, form, _OPTIONS, devices, lowered.as_text()
  return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _line(name: str, found: Figures) -> str:
  if found.problem:
    return f'{name}: does not fit: {found.problem}'
  how = 'known' if found.kept else f'compiled in {found.compile_s:.0f} s'
  return f'{name}: {how}, {(found.peak_bytes or 0) / 2**30:.2f} GiB of its own'


def _compile(lowered: Any) -> Figures:
  began = time.monotonic()
  try:
    compiled = lowered.compile(_OPTIONS)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    took = time.monotonic() - began
    return Figures(took, None, problem=_first_figures(str(error)))
  took = time.monotonic() - began
  cost = compiled.cost_analysis()
  return Figures(
    took,
    xla.peak_bytes(compiled),
    cost.get('flops', 0.0),
    cost.get('bytes accessed', 0.0),
    cost.get('optimal_seconds', 0.0),
  )


def _first_figures(text: str) -> str:
  """The compiler's line that says how much was wanted of how much."""
  lines = [line.strip() for line in text.splitlines()]
  return next((line for line in lines if 'hbm' in line.lower()), lines[0])
