"""What each extracted child is, as a section of the report.

Numbers are those of its `child.json`; only costs a block are counted here.
"""

import shlex
from typing import Any

from bignas_jax import config as config_lib
from bignas_jax import counting, page, plots
from bignas_jax.records import ChildFile, Run


def section(run: Run) -> str:
  title = 'Extracted network' if run.is_one else 'Extracted children'
  if not run.children:
    told = 'No child has been extracted yet. To cut out the best one, run'
    if run.is_one:
      told = 'It has not been extracted yet. To write it as a package, run'
    out = shlex.quote(str(run.workdir / 'children' / 'best'))
    command = run.command('extract', f'--arch=best --out={out}')
    return page.section(title, page.missing(told, command))
  cards = [_card(run, i, child) for i, child in enumerate(run.children)]
  return page.section(title, ''.join(cards))


def _card(run: Run, number: int, child: ChildFile) -> str:
  body = page.table([], _facts(run, child))
  source = child.info.get('source') or {}
  made = run.receipt.get('config_sha256') or config_lib.sha256(run.config)
  if source.get('config_sha256') != made:
    body += page.p('This child comes from a run of another config.')
  body += _exports(child) + _latencies(child)
  picture = _picture(f'blocks{number}', child)
  return f'<h3>{page.text(child.name)}</h3>{body}{picture}{_blocks(child)}'


def _facts(run: Run, child: ChildFile) -> list[list[str]]:
  """What `child.json` says, a line a subject."""

  def get(part: str, name: str) -> Any:
    return (child.info.get(part) or {}).get(name)

  difference = page.number(get('parity', 'max_abs_diff'))
  within = page.NOTHING if difference is None else f'{difference:.1e}'
  size, width, depth, kernel_size, expand_ratio = page.entries(child.arch)
  whole = 'trained network' if run.is_one else 'supernet'
  facts = {
    'cost': f'{page.integer(child.info.get("macs"))} MACs, '
    f'{page.integer(child.info.get("params"))} parameters',
    'accuracy': f'{page.percent(get("accuracy", "top1"))} % top-1, '
    f'{page.percent(get("accuracy", "top5"))} % top-5 on '
    f'{page.integer(get("accuracy", "images"))} '
    f'{page.split(get("accuracy", "split"))} images',
    'calibration': f'{page.integer(get("calibration", "images"))} training '
    f'images, seed {page.integer(get("calibration", "seed"))}',
    'parity': f'logits within {within} of the {whole}, on '
    f'{page.integer(get("parity", "images"))} images',
    'source': f'step {page.integer(get("source", "step"))}, bignas_jax '
    f'{get("source", "version") or page.NOTHING}',
    'architecture': f'{size} pixels; width {width}; depth {depth}; '
    f'kernel {kernel_size}; expand {expand_ratio}',
  }
  return [[name, text] for name, text in facts.items()]


def _exports(child: ChildFile) -> str:
  """Each artifact for serving, as its receipt says."""
  formats = (child.exports or {}).get('formats') or {}
  reference = (child.exports or {}).get('reference') or {}
  scale = page.number(reference.get('logits_scale'))
  rows = []
  for name, entry in formats.items():
    difference = page.number(entry.get('max_abs_diff'))
    shown = page.NOTHING
    if difference is not None and scale:
      shown = f'{difference / scale:.1e}'
    agreement = page.Percent(entry.get('top1_agreement'))
    rows.append([name, shown, agreement, page.Integer(entry.get('bytes'))])
  if not rows:
    return ''
  head = ['export', 'difference / scale of logits', 'same top-1, %', 'bytes']
  caption = (
    'Artifacts for serving, each run in its own runtime on '
    f'{page.integer(reference.get("images"))} '
    f'{page.split(reference.get("split"))} images and compared with the child.'
  )
  return page.table(head, rows, caption)


def _latencies(child: ChildFile) -> str:
  """What it took, on which device."""
  rows = [
    [
      str(row.get('device')),
      str(row.get('runtime')),
      page.Integer(row.get('batch')),
      *(f'{row[k]:.3g}' for k in ('median_ms', 'p90_ms')),
      page.Integer(row.get('images_per_s')),
    ]
    for row in (child.measured or {}).get('rows', [])
  ]
  if not rows:
    return ''
  head = ['device', 'runtime', 'batch', 'median, ms', '90 %, ms', 'images/s']
  return page.table(head, rows, 'How long it takes, measured as a whole.')


def _picture(name: str, child: ChildFile) -> str:
  """The child from the image to the classes."""
  arch, found = child.arch, []
  size = counting.rows(child.space, arch)[0].resolution
  found.append(('stem', arch.width[0], size, 'convolution'))
  for block in counting.blocks(child.space, arch):
    ratio, kind = f'x{block.expand_ratio}', f'kernel {block.kernel_size}'
    found.append((ratio, block.width_out, block.small, kind))
    size = block.small
  found.append(('head', arch.width[-1], size, 'convolution'))
  caption = (
    'Its blocks from the image to the classes: output channels, with the '
    'expand ratio above and the pixels below.'
  )
  return page.figure(name, plots.blocks(found), caption)


def _blocks(child: ChildFile) -> str:
  """The costs of the stem, every block and the head."""
  rows = counting.rows(child.space, child.arch)
  total = counting.total(rows)
  macs, params = total.macs, total.params
  lines = [
    [
      row.name,
      page.Integer(row.resolution),
      page.Integer(row.width),
      page.Integer(row.cost.macs),
      page.Percent(row.cost.macs / macs),
      page.Integer(row.cost.params),
      page.Percent(row.cost.params / params),
    ]
    for row in rows
  ]
  lines.append(
    ['total', '', '', page.Integer(macs), '', page.Integer(params), '']
  )
  head = ['block', 'pixels', 'channels', 'MACs', '%', 'parameters', '%']
  caption = 'What each block costs; pixels and channels are of its output.'
  return page.table(head, lines, caption, [len(lines) - 1])
