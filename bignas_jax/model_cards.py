"""What each extracted child is, as a section of the report.

Numbers are those of its `child.json`; only costs a block are counted here.
"""

import shlex

from bignas_jax import config as config_lib
from bignas_jax import contents, counting, page, plots
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
  source = child.info.source or contents.Source()
  made = run.receipt.get('config_sha256') or config_lib.sha256(run.config)
  if source.config_sha256 != made:
    body += page.p('This child comes from a run of another config.')
  body += _exports(child) + _latencies(child)
  picture = _picture(f'blocks{number}', child)
  return f'<h3>{page.text(child.name)}</h3>{body}{picture}{_blocks(child)}'


def _facts(run: Run, child: ChildFile) -> list[list[str]]:
  """What `child.json` says, a line a subject."""
  info, unknown = child.info, contents.Images()
  accuracy = info.accuracy or unknown
  calibration = info.calibration or unknown
  parity = info.parity or unknown
  source = info.source or contents.Source()
  size, width, depth, kernel_size, expand_ratio = page.entries(child.arch)
  whole = 'trained network' if run.is_one else 'supernet'
  facts = {
    'cost': f'{page.integer(info.macs)} MACs, '
    f'{page.integer(info.params)} parameters',
    'accuracy': f'{page.percent(accuracy.top1)} % top-1, '
    f'{page.percent(accuracy.top5)} % top-5 on '
    f'{page.integer(accuracy.images)} {page.split(accuracy.split)} images',
    'calibration': f'{page.integer(calibration.images)} training images, '
    f'seed {page.integer(calibration.seed)}',
    'parity': f'logits within {page.small(parity.max_abs_diff)} of the '
    f'{whole}, on {page.integer(parity.images)} images',
    'source': f'step {page.integer(source.step)}, bignas_jax '
    f'{source.version or page.NOTHING}',
    'architecture': f'{size} pixels; width {width}; depth {depth}; '
    f'kernel {kernel_size}; expand {expand_ratio}',
  }
  return [[name, text] for name, text in facts.items()]


def _exports(child: ChildFile) -> str:
  """Each artifact for serving, as its receipt says."""
  exports = child.exports or contents.Exports()
  reference = exports.reference or contents.Images()
  scale = page.number(reference.logits_scale)
  rows = []
  for name, entry in (exports.formats or {}).items():
    difference = page.number(entry.max_abs_diff)
    over_scale = page.NOTHING
    if difference is not None and scale:
      over_scale = page.small(difference / scale)
    agreement = page.Percent(entry.top1_agreement)
    rows.append([name, over_scale, agreement, page.Integer(entry.bytes)])
  if not rows:
    return ''
  head = ['export', 'difference / scale of logits', 'same top-1, %', 'bytes']
  caption = (
    'Artifacts for serving, each run in its own runtime on '
    f'{page.integer(reference.images)} {page.split(reference.split)} images '
    'and compared with the child.'
  )
  return page.table(head, rows, caption)


def _latencies(child: ChildFile) -> str:
  """What it took, on which device."""
  measured = child.measured or contents.Measured()
  rows = [
    [
      row.device or page.NOTHING,
      row.runtime or page.NOTHING,
      page.Integer(row.batch),
      page.digits(row.median_ms),
      page.digits(row.p90_ms),
      page.Integer(row.images_per_s),
    ]
    for row in measured.rows or ()
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
