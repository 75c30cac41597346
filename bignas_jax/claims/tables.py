"""The tables of the claims, for people: Markdown of `claims.json`."""

from typing import Any

JSON, MARKDOWN = 'claims.json', 'claims.md'
_HEADINGS = (
  *('claim', 'children', 'arms', 'first, %', 'second, %'),
  *('difference', 'interval', 'p', 'seeds', 'verdict'),
)


def markdown(result: dict[str, Any]) -> str:
  """Returns the text of `claims.md`.

  Args:
    result: the contents of `claims.json`.
  """
  sentences = {row['claim']: row['sentence'] for row in result['claims']}
  margins = {row['claim']: row['margin'] for row in result['claims']}
  listed = [
    f'- ({letter}) {text}{_words(margins[letter])}'
    for letter, text in sentences.items()
  ]
  arms = [f'- `{name}`: {words}' for name, words in result['arms'].items()]
  missing = [f'- {text}' for text in result['missing']] or ['- nothing']
  return '\n'.join(
    [
      '# Claims of BigNAS, tried at small scale',
      '',
      f'{result["steps"]} steps of {result["batch_size"]} images, '
      f'{result["seeds"]} seeds wanted. Calibrated top-1 on test images: mean '
      'and standard deviation over seeds. The difference is first less second, '
      f'seed by seed, in points, with its interval at level {result["level"]} '
      '(paired t-test, two-sided). `random` is the mean of '
      f'{result["random_children"]} children, the same in all runs.',
      '',
      *_table(result['claims']),
      '',
      'The claims:',
      '',
      *listed,
      '',
      'The arms:',
      '',
      *arms,
      '',
      'Missing:',
      '',
      *missing,
      '',
    ]
  )


def _words(margin: float) -> str:
  """Returns what a claim counts as no loss, if it has a margin."""
  return f' (within {100 * margin:g} point)' if margin else ''


def _table(rows: list[dict[str, Any]]) -> list[str]:
  lines = [_HEADINGS, ['---'] * len(_HEADINGS), *map(_cells, rows)]
  return [f'| {" | ".join(cells)} |' for cells in lines]


def _cells(row: dict[str, Any]) -> list[str]:
  """Returns the cells of a claim and child; '-': not known yet."""
  interval = '-'
  if 'low' in row:
    interval = f'{100 * row["low"]:+.2f} to {100 * row["high"]:+.2f}'
  difference = f'{100 * row["difference"]:+.2f}' if row['seeds'] else '-'
  return [
    f'({row["claim"]})',
    row['children'],
    _sides(row),
    _mean(row['first']),
    _mean(row['second']),
    difference,
    interval,
    f'{row["p"]:.3f}' if 'p' in row else '-',
    ', '.join(map(str, row['seeds'])) or '-',
    row['verdict'],
  ]


def _sides(row: dict[str, Any]) -> str:
  """Returns the names of both arms, or of both measurements of one arm."""
  first, second = row['arms']
  if first != second:
    return f'{first}, {second}'
  return f'{first}: {", ".join(row["measurements"])}'


def _mean(summary: dict[str, Any]) -> str:
  if 'mean' not in summary:
    return '-'
  spread = f' ± {100 * summary["sd"]:.2f}' if 'sd' in summary else ''
  return f'{100 * summary["mean"]:.2f}{spread}'
