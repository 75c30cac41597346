"""Settings of XLA: compiler options, compilation, and the program cache."""

import contextlib
import functools
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any

import jax
from etils import epath
from jax import monitoring
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import SingleDeviceSharding

from bignas_jax.system import files, locks, process

_ZLIB = b'\x78'  # what its streams begin with


def compiler_options(platform: str) -> dict[str, Any]:
  """Returns XLA's options for a platform, such as `cpu`.

  On CPUs there are two. XLA's older emitters of fused loops compile in two
  thirds of the time, to code that is as fast; they are used where they still
  exist. Optimization barriers are kept until loops are fused, because XLA
  otherwise fuses across them, which is a fifth slower (docs/performance.md).

  On GPUs there are three. Products of matrices are left to cuBLAS: XLA would
  compile dozens of its own kernels for each product and time them, which
  doubles the time of compilation and finds no faster step. Results are rounded
  to bfloat16 where a program says so: XLA would leave such roundings out, and
  then writes float32 to memory, twice the bytes. Loops and branches are
  recorded in command buffers, so that the GPU does not wait for the host at
  each of them (docs/performance.md).

  Options that the installed XLA does not accept are left out.
  """
  options = _OPTIONS.get(platform, {})
  return {n: v for n, v in options.items() if _is_accepted(platform, n, v)}


# Kinds of commands: XLA's own choice, with loops and branches.
_COMMANDS = (
  'FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,'
  'CONDITIONAL,WHILE'
)
_OPTIONS: dict[str, dict[str, Any]] = {
  'cpu': {
    'xla_disable_hlo_passes': 'cse_barrier_expander',
    'xla_cpu_use_fusion_emitters': False,
  },
  'gpu': {
    'xla_gpu_enable_triton_gemm': False,
    'xla_allow_excess_precision': False,
    'xla_gpu_enable_command_buffer': _COMMANDS,
  },
}


@functools.cache
def _is_accepted(platform: str, name: str, value: Any) -> bool:
  """Returns whether XLA accepts an option; only a compilation tells."""
  place = SingleDeviceSharding(jax.local_devices(backend=platform)[0])
  like = jax.ShapeDtypeStruct((), 'int32', sharding=place)
  program = jax.jit(lambda x: x, compiler_options={name: value}).lower(like)
  try:
    program.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'INVALID_ARGUMENT' not in str(error):
      raise
    return False
  return True


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
  """Makes programs compiled in the context multiply float32 at full precision.

  By default, TPUs round factors to bfloat16 and some GPUs to TensorFloat-32.
  CPUs do not round, so there the setting, and with it each program, stays as it
  is outside of the context.
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
  """Compiles programs in parallel, and starts them in the given order.

  The slowest programs belong first. Python traces the programs one by one,
  since it can do only one thing at a time; XLA compiles those that are traced
  in threads, since it releases Python's global lock.

  Args:
    lower: for each name, a function that traces and lowers a program.
    finish: called in a thread with (name, lowered); the default compiles.

  Returns:
    For each name, what `finish` returned.

  Raises:
    Exception: the first one that any program raises, at once.
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
  """Returns the bytes that a compiled program takes of each device's memory."""
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
  """Yields a list that grows with what JAX traces, lowers or compiles."""
  events: list[str] = []

  def note(event: str, duration_secs: float, **details: Any) -> None:
    del duration_secs
    if event.startswith('/jax/core/compile/'):
      events.append(f'{event} {details.get("fun_name", "")}'.strip())

  monitoring.register_event_duration_secs_listener(note)
  try:
    yield events
  finally:
    monitoring.unregister_event_duration_listener(note)


def keep_programs(directory: epath.Path) -> None:
  """Sets the directory of JAX's program cache, unless the user has set one.

  The cache stays valid if the directory is moved or its path is spelt in
  another way. For that, files that XLA would keep there itself are turned off,
  because on all platforms their path would become part of each cache key.
  """
  jax.config.update('jax_persistent_cache_enable_xla_caches', 'none')
  if jax.config.values['jax_compilation_cache_dir'] is None:
    if process.leads():
      _put_in_order(directory)
    jax.config.update('jax_compilation_cache_dir', str(directory))


def _put_in_order(directory: epath.Path) -> None:
  """Removes incomplete entries, unless another process may be writing them."""
  try:
    directory.mkdir(parents=True, exist_ok=True)
    locks.share(directory / '.lock', lambda: _drop_torn(directory))
  except OSError as error:
    # Nothing can be written there: programs are read, and compiled if missing.
    if not files.of_place(error):
      raise


def _drop_torn(directory: epath.Path) -> None:
  """Removes entries that a killed process left incomplete, if zlib can tell.

  JAX writes an entry in place and never replaces one, so every later process
  would compile the program of an incomplete entry again. In a bucket no entry
  is ever incomplete.
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
  """Turns the program cache off in the context.

  JAX could not read back programs for devices that are only described and are
  not in this machine.
  """
  before = jax.config.values['jax_enable_compilation_cache']
  _enable_cache(False)
  try:
    yield
  finally:
    _enable_cache(before)


def _enable_cache(value: bool) -> None:
  jax.config.update('jax_enable_compilation_cache', value)
  compilation_cache.reset_cache()  # which looks at the flag only once
