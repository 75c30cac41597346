"""What every test sees: four CPU devices and the same random examples.

pytest reads this file before any test module, so the variables are set before
JAX starts a backend, and child processes inherit them.
"""

import dataclasses
import gc
import importlib.metadata
import os
import tempfile
import warnings

import hypothesis
import pytest

os.environ['JAX_PLATFORMS'] = 'cpu'
# Unoptimised machine code compiles four times faster and computes the same,
# more slowly: right for programs that run a few times on small arrays.
_FLAGS = [
  os.environ.get('XLA_FLAGS', ''),
  '--xla_force_host_platform_device_count=4',
  '--xla_backend_optimization_level=0',
]
# XLA ends a process that names a flag which it has not.
_VERSION = importlib.metadata.version('jax').split('.')
if tuple(map(int, _VERSION[:2])) < (0, 11):
  _FLAGS.append('--xla_cpu_use_fusion_emitters=false')
os.environ['XLA_FLAGS'] = ' '.join(_FLAGS).strip()

# Many tests compile the same programs: once is enough, for all of pytest's
# processes and for those that they start. JAX writes an entry in place; with a
# limit to their size, it does so under a lock (which needs filelock).
if 'PYTEST_XDIST_WORKER' not in os.environ:
  _PROGRAMS = tempfile.TemporaryDirectory(prefix='bignas_jax_programs')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _PROGRAMS.name
  os.environ['JAX_COMPILATION_CACHE_MAX_SIZE'] = str(2**36)
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'

# What JAX keeps is much and stays: looking through it as often as Python does
# by itself takes a tenth of the time.
gc.set_threshold(100_000, 50, 100)

# First of all, so that no process of pytest-xdist ends alone with one.
_LONGEST = (
  *('network', 'cluster', 'loop', 'step_metrics', 'programs', 'kills'),
  *('recovery', 'recipe'),
)


def pytest_unconfigure():
  # JAX leaves the locks of its caches open.
  warnings.simplefilter('ignore', ResourceWarning)


def pytest_collection_modifyitems(items):
  longest = [f'test_{name}' for name in _LONGEST]
  items.sort(key=lambda item: item.path.stem not in longest)


# Compiling inside an example takes seconds, and a failure must repeat.
hypothesis.settings.register_profile(
  'repeatable', deadline=None, derandomize=True, max_examples=50
)
hypothesis.settings.register_profile(
  'thorough', deadline=None, max_examples=1000
)
hypothesis.settings.load_profile(
  os.environ.get('HYPOTHESIS_PROFILE', 'repeatable')
)


@pytest.fixture(scope='module')
def compiled_once():
  """Lets the runs of a module share programs, which take seconds to trace.

  Runs share them if their configs differ in nothing that programs depend on.
  """
  from bignas_jax.methods import programs
  from bignas_jax.runs import config as config_lib
  from bignas_jax.runs import restore
  from bignas_jax.training import loop

  train, compile_all, evaluator = (
    loop.train,
    programs.compile_all,
    restore.evaluator,
  )
  made, now = {}, []

  def trains(config, workdir):
    same = {'steps': 1, 'eval_every': 1, 'checkpoint_every': 1, 'log_every': 1}
    same['recovery'] = config_lib.Recovery()
    now[:] = [repr(dataclasses.replace(config, **same))]
    return train(config, workdir)

  def once(make, *arguments):
    key = make, *now
    if key not in made:
      made[key] = make(*arguments)
    return made[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, 'train', trains)
    patch.setattr(programs, 'compile_all', lambda *a: once(compile_all, *a))
    patch.setattr(restore, 'evaluator', lambda *a: once(evaluator, *a))
    yield
