"""Who may import whom: docs/design.md's rooms, enforced.

A module imports from lower layers, or from its own as long as no circle
arises. It keeps search away from the model, and everything below the config
from the config.
"""

import ast
import graphlib
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / 'bignas_jax'

LAYERS = [
  # 0: array math and values, about nothing but themselves
  """errors process nested allocator backend cluster space ops norm depthwise
  elastic slicing losses schedules images augment pixels policies metrics
  storage plots chips pace profiling machine files receipts divergence
  rollbacks extras placing timing console annotations schema stored parsing
  locks signals stopping replacing headers""",
  # 1: architectures, the network, and the owners of a dependency
  """arch spaces presets blocks elastic_blocks supernet folding sampling
  counting optim sharding model examples folders array_records sources
  data_identity damage batches data checkpoint child page figures plain latency
  latency_tables""",
  # 2: rules and search algorithms, which get functions
  """rules limits footprint selection coarse_to_fine evolution nsga2 predictor
  strategies archive questions measures tars shards preparing comparing
  to_stablehlo to_onnx to_saved_model to_tflite to_triton pieces runtimes
  contents""",
  # 3: programs over a model
  'sandwich programs evaluation',
  # 4: the config, and what is read with it
  'config overrides workdir starting records',
  # 5: what runs from a config
  """cli run_card observing recovery training
  trained scoring calibrating searching extraction evaluating estimating
  exporting""",
  # 6: reports and measurements
  """reporting learning_curves search_results model_cards sittings
  benchmarking benchmarking_input benchmarking_scale benchmarking_child
  benchmarking_table compiling estimating_parts api serving admission""",
  # 7: commands
  """main search extract export evaluate cost list report benchmark compile
  prepare serve""",
]

OWNERS = {
  'flax': {'supernet'},
  'orbax': {'checkpoint'},
  'array_record': {'array_records', 'shards'},
  'google': {'examples'},
  'onnx': {'to_onnx'},
  'onnxruntime': {'to_onnx', 'serve', 'serving'},
  'litserve': {'serve', 'serving'},
  'fastapi': {'serving', 'admission'},
  'tensorflow': {'to_saved_model', 'to_tflite', 'benchmarking_input'},
  'ai_edge_litert': {'to_tflite'},
  'grain': {'batches', 'data', 'preparing'},
  'simplejpeg': {'images'},
  'matplotlib': {'plots'},
  'optax': {'optim', 'schedules', 'sandwich', 'benchmarking'},
  'safetensors': {'child'},
  'sklearn': {'predictor'},
  'tensorboardX': {'metrics'},
  'msgspec': {'annotations', 'schema'},
  'fcntl': {'locks'},
}

LAYER = {
  name: number for number, names in enumerate(LAYERS) for name in names.split()
}
MODULES = sorted(
  path.stem for path in PACKAGE.rglob('*.py') if path.stem != '__init__'
)


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


def read(module: str) -> set[str]:
  return imports((PACKAGE / f'{module}.py').read_text())


def ours(module: str) -> set[str]:
  """The package's modules that a module imports."""
  parts = [name.split('.') for name in read(module)]
  names = {p[1] for p in parts if p[0] == 'bignas_jax' and len(p) > 1}
  return names & set(MODULES)


def test_the_witness_sees_all_kinds_of_imports():
  source = (
    'import os.path, a as b\n'
    'from bignas_jax import arch as arch_lib, ops\n'
    'def f():\n  from bignas_jax.space import Space\n'
    'extras.load(field, value, extra, "onnx.checker")\n'
  )
  assert imports(source) >= {
    'os.path',
    'a',
    'bignas_jax.arch',
    'bignas_jax.ops',
    'bignas_jax.space',
    'onnx.checker',
  }
  assert {'arch', 'blocks', 'ops'} <= ours('supernet')


def test_every_module_has_a_layer():
  new = set(MODULES) - set(LAYER)
  assert not new, (
    f'{sorted(new)}: place it in LAYERS of {pathlib.Path(__file__).name}, in '
    'the lowest layer above all that it imports, and in docs/design.md'
  )


def test_the_package_is_flat():
  assert [p for p in PACKAGE.iterdir() if (p / '__init__.py').exists()] == []


@pytest.mark.parametrize('module', MODULES)
def test_imports_go_down(module):
  if module not in LAYER:
    pytest.fail(f'{module} has no layer')
  upward = {n: LAYER[n] for n in ours(module) if LAYER[n] > LAYER[module]}
  assert not upward, f'{module} (layer {LAYER[module]}) imports {upward}'


def test_there_are_no_circles():
  graph = {module: ours(module) for module in MODULES}
  list(graphlib.TopologicalSorter(graph).static_order())


def test_the_package_itself_imports_nothing_of_ours():
  assert not {n for n in read('__init__') if n.startswith('bignas_jax')}


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


def test_search_algorithms_cannot_reach_the_model():
  reached = reachable('selection')
  assert not reached & {'model', 'supernet', 'blocks', 'ops', 'data', 'config'}


def test_pure_values_need_no_jax():
  """So that `cost`, for one, answers at once, and a server is small."""
  for start in (
    *('counting', 'sampling', 'selection', 'spaces', 'presets'),
    *('cost', 'list', 'latency', 'serve'),
  ):
    users = {
      module
      for module in reachable(start)
      if any(n.split('.')[0] in ('jax', 'flax') for n in read(module))
    }
    assert not users, f'{start} brings in jax through {users}'


def test_no_utils():
  assert not {m for m in MODULES if 'util' in m or 'common' in m}
