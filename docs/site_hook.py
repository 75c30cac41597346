"""Pages of the site that are no files of docs/; see mkdocs.yml.

The pages of docs/ are written for a reader of the repository: they link to
files outside of docs/. On the site each such file is a page of its own.
"""

import ast
import contextlib
import importlib
import io
import itertools
import json
import pathlib
import posixpath
import re
import sys

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'bignas_jax'
ROOT_PAGES = {
  'README.md': 'first_steps.md',
  'CONTRIBUTING.md': 'contributing.md',
  'CHANGELOG.md': 'changelog.md',
}
# Lets the search run in a page that no server serves (Material's offline
# plugin would load it from another host).
WORKER = pathlib.Path(sys.prefix, 'node_modules/iframe-worker/shim/index.js')
NOTEBOOK = 'docs/notebook.ipynb'
LINK = re.compile(r'(?<=\]\()([^)\s#]+)')
# A link that is called as the file that it leads to.
FILE_LINK = re.compile(r'\[([\w./]+)\](?=\(([^)\s#]+))')
# A search shows the guides before the reference.
BEHIND = '---\nsearch:\n  boost: 0.3\n---\n'
LANGUAGES = {'.py': 'python', '.sh': 'bash', '.yaml': 'yaml', '.json': 'json'}


# Which file of the repository is which page.


def page_of(file):
  """Returns the page that shows a file of the repository, None if none does."""
  if file == NOTEBOOK:
    return 'notebook.md'
  if file.startswith('docs/'):
    return file.removeprefix('docs/')
  if file in ROOT_PAGES:
    return ROOT_PAGES[file]
  return f'source/{file}.md' if (ROOT / file).is_file() else None


def links(text, file):
  """Yields (link, file of the repository) of the links to files in a text."""
  for link in LINK.findall(text):
    if not re.match(r'\w+:', link):
      target = posixpath.join(posixpath.dirname(file), link)
      yield link, posixpath.normpath(target)


def with_links(text, file):
  """Returns a file's text with its links to files as links to pages."""
  folder = posixpath.dirname(page_of(file)) or '.'
  pages = {link: page_of(target) for link, target in links(text, file)}
  return LINK.sub(
    lambda match: (
      posixpath.relpath(pages[match[0]], folder)
      if pages.get(match[0])
      else match[0]
    ),
    text,
  )


# What links to pages are called.


def titles(nav):
  """Yields (page, title) of the navigation, before its folders are listed."""
  for section in nav:
    [(title, inside)] = section.items()
    if isinstance(inside, list):
      yield from titles(inside)
    else:
      yield f'{inside}README.md' if inside.endswith('/') else inside, title


def heading(page):
  """Returns the heading of a page of docs/ in a reader's words."""
  return (ROOT / 'docs' / page).read_text().split('\n')[0].removeprefix('# ')


def with_titles(text, file, names):
  """Returns a text whose links to pages have titles, not names of files.

  Args:
    text: text of a file of the repository, before `with_links`.
    file: name of the file.
    names: {page: title} of the navigation.
  """
  pages = {link: page_of(target) for link, target in links(text, file)}

  def named(match):
    called, link = match[1], match[2]
    page = pages.get(link)
    of_file = posixpath.normpath(link).removesuffix('/README.md')
    same = posixpath.basename(of_file) == called.strip('/')
    if not page or page.startswith('source/') or not same:
      return match[0]
    return f'[{names.get(page) or heading(page)}]'

  return FILE_LINK.sub(named, text)


# What the generated pages say.


def fenced(text, language=''):
  return f'````{language}\n{text.rstrip()}\n````\n'


def source_page(file):
  """Returns the page that shows a file's text."""
  path = ROOT / file
  text = fenced(path.read_text(), LANGUAGES.get(path.suffix, 'text'))
  return f'# {file}\n\n{text}'


def output(result):
  """Returns a result of a cell of a notebook, as Markdown."""
  data = result['data']
  if 'image/png' in data:
    image = ''.join(data['image/png']).replace('\n', '')
    return f'![Output](data:image/png;base64,{image})\n'
  return fenced(''.join(data['text/plain']), 'text')


def outputs(results):
  """Yields what a cell printed or drew; lines printed in a row are one text."""
  for kind, group in itertools.groupby(results, lambda r: r['output_type']):
    if kind == 'stream':
      yield fenced(''.join(line for r in group for line in r['text']), 'text')
    else:
      yield from map(output, group)


def notebook_page(text):
  """Returns a notebook as Markdown."""
  blocks = []
  for cell in json.loads(text)['cells']:
    source = ''.join(cell['source'])
    code = cell['cell_type'] == 'code'
    blocks.append(fenced(source, 'python') if code else source)
    blocks += outputs(cell.get('outputs', []))
  return '\n\n'.join(blocks)


def summary(path):
  """Returns the first sentence of a module's docstring."""
  text = ast.get_docstring(ast.parse(path.read_text())) or ''
  return ' '.join(text.split('\n\n')[0].split())


def room_page(title, intro, names):
  """Returns the page of a room: its modules, read from their docstrings."""
  modules = '\n\n'.join(f'::: bignas_jax.{name}' for name in names)
  return f'# {title}\n\n{intro}\n\n{modules}\n'


def help_of(command):
  """Returns what a command prints for `--help`; `benchmark child` is one."""
  name, *what = command.split()
  main = importlib.import_module(f'bignas_jax.{name}').main
  text = io.StringIO()
  with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
    main([*what, '--help'])
  return text.getvalue()


def commands():
  """Returns the names of all commands, sorted."""
  names = {*modules(PACKAGE)} - {'api', 'cli', 'benchmark'}
  kinds = importlib.import_module('bignas_jax.benchmark').BENCHMARKS
  return sorted(names | {f'benchmark {kind}' for kind in kinds})


def commands_page(intro):
  """Returns the page of the commands: what each prints for `--help`."""
  texts = [f'## {name}\n\n{fenced(help_of(name))}' for name in commands()]
  return '\n\n'.join([f'# commands\n\n{intro}', *texts])


def modules(folder, prefix=''):
  paths = sorted(folder.glob('*.py'))
  return [prefix + path.stem for path in paths if path.stem != '__init__']


def reference():
  """Returns {page: text} of the reference: an index, and a page a room."""
  rooms = sorted(path.parent for path in PACKAGE.glob('*/__init__.py'))
  rows = [
    f'| [{room.name}]({room.name}.md) | {summary(room / "__init__.py")} |'
    for room in rooms
  ]
  tops = {
    'commands': 'What each command prints for `--help`.',
    'notebooks': 'What notebooks call, and what the commands share (`cli`).',
  }
  index = '\n'.join(
    [
      '# Reference\n',
      'The options of each command, and all functions, read from their',
      'docstrings. A page of functions has the modules of one room, a folder',
      'of `bignas_jax/`; the [design](../design.md#3-rooms) says which room',
      'may import which.\n',
      '| page | what it has |\n|---|---|',
      *(f'| [{name}]({name}.md) | {text} |' for name, text in tops.items()),
      *rows,
    ]
  )
  pages = {'README.md': index, 'commands.md': commands_page(tops['commands'])}
  both = ['api', 'cli']
  pages['notebooks.md'] = room_page('notebooks', tops['notebooks'], both)
  for room in rooms:
    names = modules(room, f'{room.name}.')
    intro = summary(room / '__init__.py')
    pages[f'{room.name}.md'] = room_page(room.name, intro, names)
  return {f'reference/{name}': BEHIND + text for name, text in pages.items()}


def generated(pages, names):
  """Returns {page: text} of the pages that are no files of docs/.

  Args:
    pages: {file of the repository: text} of the pages of docs/.
    names: {page: title} of the navigation.
  """
  whole = pages | {file: (ROOT / file).read_text() for file in ROOT_PAGES}
  notebook = notebook_page((ROOT / NOTEBOOK).read_text())
  made = reference()
  made['notebook.md'] = with_links(notebook, NOTEBOOK)
  for file in ROOT_PAGES:
    text = with_titles(whole[file], file, names)
    made[ROOT_PAGES[file]] = with_links(text, file)
  for file, text in whole.items():
    for _, target in links(text, file):
      page = page_of(target)
      if page and page.startswith('source/'):
        made[page] = source_page(target)
  return made


# What MkDocs calls.


def on_config(config):
  """Puts the pages of a folder in place of its name in the navigation."""
  config.extra['titles'] = dict(titles(config.nav))
  folders = {'reference/': list(reference())}
  for section in list(config.nav):
    [(_, name)] = section.items()
    if not isinstance(name, str) or not name.endswith('/'):
      continue
    pages = folders.get(name) or _in_order(name)
    if pages:
      section[next(iter(section))] = pages
    else:
      config.nav.remove(section)
  return config


def _in_order(folder):
  """Returns the pages of a folder of docs/ in the order of its index."""
  index = ROOT / 'docs' / folder / 'README.md'
  listed = LINK.findall(index.read_text()) if index.exists() else []
  here = sorted(path.name for path in index.parent.glob('*.md'))
  order = ['README.md', *listed, *here]
  return [f'{folder}{name}' for name in sorted(here, key=order.index)]


def on_files(files, config):
  """Adds the generated pages, and what lets the search run in a file."""
  pages = {
    f'docs/{f.src_uri}': f.content_string
    for f in files
    if f.is_documentation_page()
  }
  for name, text in generated(pages, config.extra['titles']).items():
    files.append(File.generated(config, name, content=text))
  name = 'assets/iframe-worker.js'
  files.append(File.generated(config, name, abs_src_path=str(WORKER)))
  return files


def on_page_markdown(markdown, page, config, files):
  """Makes links to files of the repository links to their pages."""
  if page.file.generated_by:
    return markdown
  file = f'docs/{page.file.src_uri}'
  return with_links(with_titles(markdown, file, config.extra['titles']), file)
