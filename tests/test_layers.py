"""Which room may import which: docs/design.md's picture, enforced.

A module imports from its own room, as long as no circle arises, and from rooms
before it in `ROOMS`. It keeps search algorithms away from the network, and all
that is not about a run away from the config.
"""

import ast
import functools
import graphlib
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / 'bignas_jax'

# From the ground up; the commands, and what they share, stand on top.
ROOMS = (
  *('values', 'system', 'spaces', 'costs', 'strategies', 'data'),
  *(
    'operations',
    'supernet',
    'policies',
    'methods',
    'deploy',
    'serving',
    'runs',
  ),
  *('training', 'reporting', 'selection', 'claims', 'conversion'),
  *('estimates', 'perf', 'fitting'),
)
COMMANDS = {
  *('main', 'search', 'extract', 'evaluate', 'export', 'cost', 'compile'),
  *('benchmark', 'report', 'list', 'prepare', 'serve', 'convert'),
  'fit',
}
MOST_FILES = 16

# Who alone imports a third-party package.
OWNERS = {
  'flax': {'supernet.network', 'supernet.ends', 'deploy.package'},
  'orbax': {'runs.checkpoints'},
  'array_record': {'data.array_records', 'data.shards'},
  'google': {'data.array_records'},
  'ml_collections': {'runs.config_file'},
  'onnx': {'deploy.onnx'},
  'onnxruntime': {'deploy.onnx', 'serving.server', 'serve'},
  'litserve': {'serving.server', 'serving.drain', 'serve'},
  'fastapi': {'serving.server', 'serving.admission', 'serving.service_metrics'},
  'prometheus_client': {'serving.service_metrics', 'serve'},
  'mlflow': {'runs.tracker_clients'},
  'wandb': {'runs.tracker_clients'},
  'tensorflow': {'deploy.saved_model', 'perf.input_rate'},
  'ai_edge_litert': {'deploy.tflite'},
  'ai_edge_quantizer': {'deploy.tflite'},
  'coremltools': {'deploy.coreml'},
  'grain': {'data.loader', 'data.pipeline', 'data.prepare_imagenet'},
  'simplejpeg': {'data.decode'},
  'jinja2': {'reporting.page'},
  'markupsafe': {'reporting.page'},
  'matplotlib': {'reporting.canvas'},
  'optax': {
    *('methods.optim', 'methods.schedules', 'methods.step'),
    *('methods.trained', 'methods.update'),
    'perf.step_time',
  },
  'safetensors': {'deploy.package'},
  'sklearn': {'strategies.predictor'},
  'threadpoolctl': {'strategies.predictor'},
  'torch': {'perf.torch_peer'},
  'tensorboardX': {'runs.metrics'},
  'msgspec': {'values.annotations', 'values.schema'},
  'fcntl': {'system.locks'},
  'huggingface_hub': {'deploy.hub'},
  'ml_dtypes': {'conversion.torch_files'},
}
# Shapes stand in the signatures of these rooms.
SHAPED = {'operations', 'supernet', 'policies', 'methods'}


def _name(path: pathlib.Path) -> str:
  return '.'.join(path.relative_to(PACKAGE).with_suffix('').parts)


MODULES = sorted(
  _name(path) for path in PACKAGE.rglob('*.py') if path.stem != '__init__'
)
OWNERS['jaxtyping'] = {m for m in MODULES if m.split('.')[0] in SHAPED}


def room_of(module: str) -> str:
  """The room of a module, such as `spaces.arch`; '': none."""
  return module.rpartition('.')[0]


def imports(source: str) -> set[str]:
  """All that a file imports, wherever in it: full names of modules."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'write imports in full'
      assert node.module is not None
      found.add(node.module)
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
    elif isinstance(node, ast.Call):
      called = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
      if called in ('load', '_load'):  # `extras.load`, of optional packages
        arguments = [getattr(a, 'value', None) for a in node.args]
        found |= {a for a in arguments if isinstance(a, str)}
  return found


@functools.cache
def read(module: str) -> set[str]:
  path = PACKAGE.joinpath(*module.split('.')).with_suffix('.py')
  return imports(path.read_text())


def ours(module: str) -> set[str]:
  """The package's modules that a module imports."""
  whole = {f'bignas_jax.{name}' for name in MODULES} & read(module)
  return {name.removeprefix('bignas_jax.') for name in whole}


def test_the_witness_sees_all_kinds_of_imports():
  source = (
    'import os.path, a as b\n'
    'from bignas_jax.spaces import arch as arch_lib, presets\n'
    'def f():\n  from bignas_jax.spaces.space import Space\n'
    'extras.load(field, value, extra, "onnx.checker")\n'
  )
  assert imports(source) >= {
    'os.path',
    'a',
    'bignas_jax.spaces.arch',
    'bignas_jax.spaces.presets',
    'bignas_jax.spaces.space',
    'onnx.checker',
  }
  network = ours('supernet.network')
  assert {'spaces.arch', 'supernet.blocks', 'operations.ops'} <= network


def test_every_module_has_a_room():
  found = {room_of(module) for module in MODULES} - {''}
  assert found == set(ROOMS)
  alone = {module for module in MODULES if not room_of(module)}
  assert alone == {'api', 'cli', *COMMANDS}


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_can_be_overlooked(room):
  """A sentence says what it is for, and there are not too many files."""
  assert ast.get_docstring(
    ast.parse((PACKAGE / room / '__init__.py').read_text())
  )
  inside = [module for module in MODULES if room_of(module) == room]
  assert 0 < len(inside) <= MOST_FILES


@pytest.mark.parametrize('module', MODULES)
def test_imports_go_down(module):
  order = {room: number for number, room in enumerate((*ROOMS, ''))}
  own = order[room_of(module)]
  upward = {name for name in ours(module) if order[room_of(name)] > own}
  assert not upward, f'{module} imports {upward}'


def test_there_are_no_circles():
  graph = {module: ours(module) for module in MODULES}
  list(graphlib.TopologicalSorter(graph).static_order())


def test_commands_import_no_command():
  assert not {c: ours(c) & COMMANDS for c in COMMANDS if ours(c) & COMMANDS}


def test_the_package_itself_imports_nothing_of_ours():
  found = imports((PACKAGE / '__init__.py').read_text())
  assert not {name for name in found if name.startswith('bignas_jax')}


@pytest.mark.parametrize('dependency', OWNERS)
def test_each_dependency_has_its_owners(dependency):
  users = {
    module
    for module in MODULES
    if any(name.split('.')[0] == dependency for name in read(module))
  }
  assert users <= OWNERS[dependency]


def reachable(module: str) -> set[str]:
  """All of ours that importing a module brings in."""
  found, todo = set(), {module}
  while todo:
    found |= todo
    todo = set().union(*map(ours, todo)) - found
  return found


def test_search_algorithms_cannot_reach_the_network():
  for module in MODULES:
    if room_of(module) == 'strategies':
      rooms = {room_of(name) for name in reachable(module)}
      assert rooms <= {'values', 'system', 'spaces', 'costs', 'strategies'}


def test_only_what_is_about_a_run_sees_a_config():
  below = ROOMS[: ROOMS.index('runs')]
  for module in MODULES:
    if room_of(module) in below:
      assert 'runs.config' not in reachable(module)


def test_pure_values_need_no_jax():
  """So that `cost`, for one, answers at once, and a server is small."""
  rooms = ('values', 'spaces', 'costs', 'strategies')
  pure = [m for m in MODULES if room_of(m) in rooms]
  for start in (*pure, 'policies.sampling', 'cost', 'list', 'serve'):
    users = {
      module
      for module in reachable(start)
      if any(n.split('.')[0] in ('jax', 'flax') for n in read(module))
    }
    assert not users, f'{start} brings in jax through {users}'


def test_no_utils():
  assert not {m for m in MODULES if 'util' in m or 'common' in m}
