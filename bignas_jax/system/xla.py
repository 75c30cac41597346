"""What a process tells XLA."""

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any

import jax
from etils import epath
from jax import monitoring
from jax.experimental.compilation_cache import compilation_cache

from bignas_jax.system import files, locks, process

_ZLIB = b'\x78'  # what its streams begin with


def compiler_options(platform: str) -> dict[str, Any]:
  """XLA's options for a platform, such as `cpu`.

  On CPUs its older emitters of fused loops take two thirds of the time to
  compile, for code that runs as fast, where they are still there; and
  optimization barriers are kept until loops are fused, which otherwise fuses
  across them and is a fifth slower (docs/performance.md).
  """
  if platform != 'cpu':
    return {}
  options: dict[str, Any] = {'xla_disable_hlo_passes': 'cse_barrier_expander'}
  if jax.__version_info__ < (0, 12):
    options['xla_cpu_use_fusion_emitters'] = False
  return options


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
  """Has what is compiled inside multiply float32 as float32.

  TPUs round factors to bfloat16 by default, and some GPUs to TensorFloat-32.
  CPUs do not, and their programs stay those that are compiled outside.
  """
  if jax.devices()[0].platform == 'cpu':
    yield
    return
  with jax.default_matmul_precision('highest'):
    yield


def compile_all(
  lower: Mapping[Any, Callable[[], Any]],
  finish: Callable[[Any, Any], Any] = lambda name, lowered: lowered.compile(),
) -> dict[Any, Any]:
  """Compiles side by side, in the order given: the slowest belong first.

  They are traced one after the other, since Python does one thing at a time;
  XLA, which releases the interpreter, compiles those that are traced.

  Args:
    lower: by name, what traces and lowers a program.
    finish: what becomes of (name, lowered), in a thread.

  Returns:
    By name, what `finish` returned.

  Raises:
    Exception: the first that a program raises, at once.
  """
  pool = futures.ThreadPoolExecutor(process.cores())
  waiting: dict[Any, futures.Future] = {}
  try:
    for name, make in lower.items():
      waiting[name] = pool.submit(finish, name, make())
      _raise_failures(waiting.values())
    futures.wait(waiting.values(), return_when=futures.FIRST_EXCEPTION)
    _raise_failures(waiting.values())
    return {name: one.result() for name, one in waiting.items()}
  finally:
    # Nothing more is begun after a failure, nor is the rest waited for.
    pool.shutdown(wait=False, cancel_futures=True)


def _raise_failures(waiting: Iterable[futures.Future]) -> None:
  for one in waiting:
    if one.done():
      one.result()


def peak_bytes(compiled: Any) -> int:
  """What a compiled program takes of each device's memory."""
  memory = compiled.memory_analysis()
  return (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
    + memory.generated_code_size_in_bytes
  )


@contextlib.contextmanager
def traces() -> Iterator[list[str]]:
  """Yields a list of what JAX traces, lowers or compiles meanwhile."""
  seen: list[str] = []

  def note(event: str, duration_secs: float, **details: Any) -> None:
    del duration_secs
    if event.startswith('/jax/core/compile/'):
      seen.append(f'{event} {details.get("fun_name", "")}'.strip())

  monitoring.register_event_duration_secs_listener(note)
  try:
    yield seen
  finally:
    monitoring.unregister_event_duration_listener(note)


def keep_programs(directory: epath.Path) -> None:
  """Keeps compiled programs there, unless the user has named a place.

  They are found again wherever the place is moved to, and however it is
  spelt: JAX would have XLA keep files of its own there, whose path, on all
  platforms, becomes part of what programs are known by.
  """
  jax.config.update('jax_persistent_cache_enable_xla_caches', 'none')
  if jax.config.values['jax_compilation_cache_dir'] is None:
    if process.leads():
      _put_in_order(directory)
    jax.config.update('jax_compilation_cache_dir', str(directory))


def _put_in_order(directory: epath.Path) -> None:
  """Drops what is torn, unless another process may be writing it."""
  try:
    directory.mkdir(parents=True, exist_ok=True)
    locks.share(directory / '.lock', lambda: _drop_torn(directory))
  except OSError as error:
    # Nothing can be written there: programs are read, and compiled if missing.
    if not files.of_place(error):
      raise


def _drop_torn(directory: epath.Path) -> None:
  """Removes what a killed run was writing, as far as zlib can tell.

  JAX writes an entry in place, and leaves it alone once it exists: a torn one
  would be compiled anew by every later process. In a bucket none is torn.
  """
  for path in directory.glob('*-cache'):
    content, stream = path.read_bytes(), zlib.decompressobj()
    if content[:1] not in (b'', _ZLIB):
      continue  # by zstandard, which JAX prefers where it is installed
    try:
      stream.decompress(content)
      whole = stream.eof
    except zlib.error:
      whole = False
    if not whole:
      path.unlink()


@contextlib.contextmanager
def programs_not_kept() -> Iterator[None]:
  """For devices that are described, not there: JAX could not read them back."""
  before = jax.config.values['jax_enable_compilation_cache']
  _enable_cache(False)
  try:
    yield
  finally:
    _enable_cache(before)


def _enable_cache(value: bool) -> None:
  jax.config.update('jax_enable_compilation_cache', value)
  compilation_cache.reset_cache()  # which looks at the flag only once
