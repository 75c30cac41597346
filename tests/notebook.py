"""Executes docs/notebook.ipynb from the root, as a reader of it would.

  .venv/notebook/bin/python tests/notebook.py --out=runs/notebook.ipynb

`make notebook` does so, after `make demo` where its run is missing. An error in
a cell ends it with that cell and status 1. `--out=docs/notebook.ipynb` renews
the outputs that readers see.
"""

import argparse
import pathlib

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parents[1]
FILE = ROOT / 'docs' / 'notebook.ipynb'
_START_S = 300  # most seconds until a kernel answers


def execute(out):
  """Executes all cells in a kernel of their own, and writes them to a file."""
  notebook = nbformat.read(FILE, as_version=4)
  client = nbclient.NotebookClient(
    notebook,
    timeout=None,
    startup_timeout=_START_S,
    kernel_name='python3',
    record_timing=False,
    resources={'metadata': {'path': str(ROOT)}},
  )
  client.execute()
  notebook.metadata.pop('language_info', None)  # of this machine's Python
  nbformat.write(notebook, out)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--out', required=True, help='a file, which is replaced')
  given = parser.parse_args()
  execute(given.out)
  print(f'executed all cells: {given.out}')
