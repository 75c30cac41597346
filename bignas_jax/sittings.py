"""What a run took, from its card, as a section of the report."""

from bignas_jax import contents, page
from bignas_jax.records import Run


def section(run: Run) -> str:
  """Nothing, if the run has no card."""
  card = run.card
  if card is None:
    return ''
  told = (
    f'{card.status or page.NOTHING}: step {page.integer(card.step)} of '
    f'{page.integer(card.of)}; {page.integer(card.images)} images in '
    f'{_duration(card.hours)}, compiling, evaluating and saving included.'
  )
  head = ['started', 'status', 'steps', 'time', 'devices', 'hosts', 'commit']
  rows = [
    [
      one.started or page.NOTHING,
      one.status or page.NOTHING,
      f'{page.integer(one.first_step)} to {page.integer(one.step)}',
      _duration(one.hours),
      f'{page.integer(one.devices)} {one.device_kind or ""}',
      ' '.join(one.hosts or ()),
      _commit(one.commit),
    ]
    for one in card.sittings or ()
  ]
  caption = 'Each start of the training command. A dirty commit: changed files.'
  return page.section(
    'What it took', page.p(told) + page.table(head, rows, caption)
  )


def _duration(hours: contents.Number) -> str:
  known = page.number(hours)
  return page.NOTHING if known is None else page.duration(3600 * known)


def _commit(found: contents.Commit | None) -> str:
  if found is None or not found.sha:
    return page.NOTHING
  return f'{found.sha[:10]}{", dirty" if found.dirty else ""}'
