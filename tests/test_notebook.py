"""The notebook is Python, and all that it uses of this package exists.

`make notebook` executes it, which takes minutes.
"""

import ast
import dataclasses
import importlib
import inspect
import json
import pathlib
import typing

import pytest

FILE = pathlib.Path(__file__).parents[1] / 'docs' / 'notebook.ipynb'


def code(cell):
  """A cell's Python, without the lines that are IPython's own."""
  lines = ''.join(cell['source']).splitlines()
  return '\n'.join(line for line in lines if not line.startswith('%'))


def cells():
  return [
    code(cell)
    for cell in json.loads(FILE.read_text())['cells']
    if cell['cell_type'] == 'code'
  ]


def hint(function, name):
  """What a signature says, if that is something of this package; else None."""
  said = typing.get_type_hints(function).get(name)
  own = getattr(said, '__module__', '').startswith('bignas_jax')
  return said if own else None


class Names(ast.NodeVisitor):
  """What the names of a notebook are; a class stands for what is of it."""

  def __init__(self):
    self.known = {}

  def visit_Import(self, node):
    for alias in node.names:
      if alias.name == 'bignas_jax':
        self.known[alias.name] = importlib.import_module(alias.name)

  def visit_ImportFrom(self, node):
    for alias in node.names:
      full = f'{node.module}.{alias.name}'
      self.known[alias.name] = importlib.import_module(full)

  def visit_Assign(self, node):
    self.generic_visit(node)
    (target,) = node.targets
    if isinstance(target, ast.Name):
      self.known[target.id] = self.of(node.value)

  def visit_Attribute(self, node):
    self.generic_visit(node)
    self.of(node)

  def visit_Call(self, node):
    self.generic_visit(node)
    function = self.of(node.func)
    if inspect.isfunction(function):
      arguments = [None] * len(node.args)
      if isinstance(node.func, ast.Attribute) and inspect.isclass(
        self.of(node.func.value)
      ):
        arguments.append(None)  # self
      named = {word.arg: None for word in node.keywords}
      inspect.signature(function).bind(*arguments, **named)

  def of(self, node):
    """What an expression is; None: nothing of this package."""
    if isinstance(node, ast.Name):
      return self.known.get(node.id)
    if isinstance(node, ast.Call):
      function = self.of(node.func)
      return hint(function, 'return') if inspect.isfunction(function) else None
    if not isinstance(node, ast.Attribute):
      return None
    owner = self.of(node.value)
    if owner is None:
      return None
    if dataclasses.is_dataclass(owner) and node.attr in (
      field.name for field in dataclasses.fields(owner)
    ):
      return hint(owner, node.attr)
    found = getattr(owner, node.attr)
    return hint(found.fget, 'return') if isinstance(found, property) else found


def test_the_notebook_uses_what_there_is():
  names, used = Names(), set()
  for text in cells():
    tree = ast.parse(text)
    names.visit(tree)
    used |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
  # As the tutorial says.
  api = {'load_run', 'load_child', 'list_models'}
  methods = {'costs', 'sample', 'evaluate', 'search', 'extract'}
  assert api | methods <= used
  assert names.known['child'].__name__ == 'Network'


@pytest.mark.parametrize(
  ('text', 'error'),
  [
    ('bignas_jax.load_runs()', AttributeError),
    ('run.samples(3)', AttributeError),
    ('run.space.names', AttributeError),
    ('run.sample(3, sed=1)', TypeError),
    ('run.extract("best", "there").arhc', AttributeError),
    ('from bignas_jax.data import pipelines', ModuleNotFoundError),
    ('run.sample(3', SyntaxError),
  ],
)
def test_what_there_is_not_would_be_noticed(text, error):
  names = Names()
  names.visit(ast.parse("import bignas_jax\nrun = bignas_jax.load_run('x')"))
  with pytest.raises(error):
    names.visit(ast.parse(text))
