"""What a reader finds: sentences, names, links and commands that hold."""

import ast
import pathlib
import re
import runpy

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'bignas_jax'
MODULES = sorted(PACKAGE.rglob('*.py'))
PAGES = [
  *(ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')),
  *sorted((ROOT / 'docs').rglob('*.md')),
]

# Names that say nothing of what they hold: one idea has one word (docs/design).
BANNED = {
  *('where', 'way', 'ways', 'course', 'turn', 'turns', 'sitting', 'sittings'),
  *('told', 'seen', 'known', 'found', 'counts', 'gives', 'taken', 'recall'),
  *('pace', 'figures', 'piece', 'pieces', 'part', 'parts', 'placing'),
  *('receipt', 'receipts'),
}
# Names of others, and of keys in files.
ALLOWED = {
  *('DatasetNotFoundError', 'FileNotFoundError', 'ModuleNotFoundError'),
  'PackageNotFoundError',  # of Python and TFDS
  *('part_ms', 'parts_ms'),  # of latency tables
  *('sittings', 'seen'),  # of run.json
}
FOREIGN = {('jnp', 'where'), ('np', 'where'), ('path', 'parts')}

# A docstring's first word, which ends in -s, but is no verb.
NO_VERBS = {'this', 'its', 'as', 'always', 'plus', 'less', 'thus', 'hers'}


def functions(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      yield node


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_a_docstring_begins_with_its_functions_verb(path):
  for node in functions(path):
    text = ast.get_docstring(node)
    if node.name.startswith('_') or text is None:
      continue
    first = text.split()[0].rstrip(',')
    verb = re.fullmatch(r'[A-Z][a-z]+s', first)
    assert verb and first.lower() not in NO_VERBS, f'{node.name}: {text[:60]}'


def identifiers(tree):
  for node in ast.walk(tree):
    if isinstance(node, ast.Name):
      yield node.id
    elif isinstance(node, ast.Attribute):
      owner = node.value.id if isinstance(node.value, ast.Name) else ''
      if (owner, node.attr) not in FOREIGN:
        yield node.attr
    elif isinstance(node, ast.arg):
      yield node.arg
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
      yield node.name


def words(identifier):
  return {
    word.lower() for word in re.split(r'_|(?<=[a-z])(?=[A-Z])', identifier)
  }


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_no_name_is_a_banned_word(path):
  names = set(identifiers(ast.parse(path.read_text()))) - ALLOWED
  assert not [name for name in names if words(name) & BANNED]


# Links.


def slug(heading):
  """A heading's anchor, as GitHub makes it."""
  text = re.sub(r'[`*]|\[([^]]*)\]\([^)]*\)', r'\1', heading).strip().lower()
  return re.sub(r'[^\w\- ]', '', text).replace(' ', '-')


def anchors(path):
  text = re.sub(r'^```.*?^```', '', path.read_text(), flags=re.M | re.S)
  return {slug(line) for line in re.findall(r'^#+ (.*)$', text, re.M)}


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
  text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.M | re.S)
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    if re.match(r'https?://|mailto:', target):
      continue
    file, _, anchor = target.partition('#')
    there = (page.parent / file).resolve() if file else page
    assert there.exists(), target
    assert not anchor or anchor in anchors(there), target


# Commands.

# Of commands in the pages: what a test runs, or why none does.
RUN = {
  'fit': 'test_fitting',
  'main': 'test_commands',
  'search': 'test_commands',
  'extract': 'test_commands',
  'evaluate': 'test_commands',
  'export': 'test_export',
  'cost': 'test_commands',
  'list': 'test_presets',
  'report': 'test_commands',
  'prepare': 'test_array_records',
  'convert': 'test_attentive_nas',
  'compile': 'test_plan',
  'benchmark device': 'test_device',
  'benchmark step': 'test_step_time',
  'benchmark path': 'test_step_time',
  'benchmark ranking': 'test_ranking',
  'benchmark claims': 'test_trials',
  'benchmark scale': 'test_step_time',
  'benchmark input': 'test_input_rate',
  'benchmark child': 'test_latency_table',
  'benchmark table': 'test_latency_table',
  'benchmark serve': 'test_soak',
  'serve': 'test_server',
}


def commands(page):
  """(command, its flags) of all `python -m bignas_jax.NAME` in a page.

  A machine without the package's environment may have `python3` alone.
  """
  text = re.sub(r'\\\n\s*', ' ', page.read_text())
  for line in re.findall(r'python3? -m bignas_jax\.([^`\n\']*)', text):
    name, *arguments = line.split()
    if name == 'benchmark' and arguments:
      name = f'{name} {arguments[0]}'
    flags = [a for a in arguments if a.startswith('--')]
    yield name, [re.split(r'[=\]]', flag)[0].lstrip('-') for flag in flags]


# Commands whose flags are not in the module of that name.
FLAGS = {'benchmark claims': 'claims/command.py'}


def defined(name):
  """Text of the modules that define the command's flags."""
  own = FLAGS.get(name, f'{name.split()[0]}.py')
  return (PACKAGE / own).read_text() + (PACKAGE / 'cli.py').read_text()


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_commands_of_the_pages_exist_and_are_run_by_tests(page):
  for name, flags in commands(page):
    if not re.fullmatch(r'[a-z]+( [a-z]+)?', name):
      continue  # NAME, or a module that is described
    assert name in RUN, name
    assert [*(ROOT / 'tests').glob(f'**/{RUN[name]}.py')], RUN[name]
    for flag in flags:
      bound = re.fullmatch(r'(max|min)_\w+', flag)
      if flag and not flag.startswith('config') and not bound:
        assert f"'{flag}'" in defined(name), f'{name} --{flag}'


def test_every_command_is_described():
  named = {name.split()[0] for page in PAGES for name, _ in commands(page)}
  modules = {name.split()[0] for name in RUN}
  assert modules <= named


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_make_targets_of_the_pages_exist(page):
  targets = re.findall(r'^([a-z]+):', (ROOT / 'Makefile').read_text(), re.M)
  code = re.findall(r'`make ([a-z]+)|^\s*make ([a-z]+)', page.read_text(), re.M)
  for first, second in code:
    assert (first or second) in targets


# The site.


def pages_in(nav):
  """Names of pages, and of folders of pages, in mkdocs.yml's navigation."""
  for section in nav:
    for name in section.values():
      if isinstance(name, str):
        yield name
      else:
        yield from pages_in(name)


def test_every_page_is_in_the_sites_navigation():
  # The base loader reads no Python objects.
  site = yaml.load((ROOT / 'mkdocs.yml').read_text(), yaml.BaseLoader)
  names = list(pages_in(site['nav']))
  assert len(names) == len(set(names))
  docs = ROOT / 'docs'
  for page in docs.rglob('*.md'):
    name = page.relative_to(docs).as_posix()
    folder = name.rpartition('/')[0] + '/'
    assert name in names or folder in names, name


def test_code_in_a_sentence_is_broken_between_its_words():
  breakable = runpy.run_path(str(ROOT / 'docs/site_lines.py'))['breakable']
  html = '<p><code>search --data=a/b</code>, and <a href="a/b"></a></p>'
  option = '<span class="option">--data</span>=<wbr>a/<wbr>b'
  assert breakable(html) == html.replace('--data=a/b', option)
  block = '<pre><span></span><code>search --data=a/b\n</code></pre>'
  assert breakable(block) == block
  link = '<code><a href="a/b">--data</a></code>'
  assert breakable(link) == link


def test_no_space_stands_between_code_and_a_closing_bracket():
  closed = runpy.run_path(str(ROOT / 'docs/site_lines.py'))['closed']
  html = '<li>(<code>int</code>, default: <code>8</code>\n )\n (a)</li>'
  assert closed(html) == html.replace('\n )', ')')


def test_long_cells_of_tables_are_marked_and_percentages_whole():
  cells = runpy.run_path(str(ROOT / 'docs/site_lines.py'))['with_sentences']
  assert cells('<td>5 %</td>') == '<td>5&nbsp;%</td>'
  long = '<code>a</code> b' * 20
  assert cells(f'<td>{long}</td>') == f'<td class="sentence">{long}</td>'
