"""What a run took, from its card, as a section of the report."""

from bignas_jax.reporting import contents, html
from bignas_jax.reporting.run_files import Run


def section(run: Run) -> str:
  """Nothing, if the run has no card."""
  card = run.card
  if card is None:
    return ''
  told = (
    f'{card.status or html.NOTHING}: step {html.integer(card.step)} of '
    f'{html.integer(card.of)}; {html.integer(card.images)} images in '
    f'{_duration(card.hours)}, compiling, evaluating and saving included.'
  )
  head = ['started', 'status', 'steps', 'time', 'devices', 'hosts', 'commit']
  rows = [
    [
      one.started or html.NOTHING,
      one.status or html.NOTHING,
      f'{html.integer(one.first_step)} to {html.integer(one.step)}',
      _duration(one.hours),
      f'{html.integer(one.devices)} {one.device_kind or ""}',
      ' '.join(one.hosts or ()),
      _commit(one.commit),
    ]
    for one in card.sittings or ()
  ]
  caption = 'Each start of the training command. A dirty commit: changed files.'
  return html.section(
    'What it took', html.p(told) + html.table(head, rows, caption)
  )


def _duration(hours: contents.Number) -> str:
  known = html.number(hours)
  return html.NOTHING if known is None else html.duration(3600 * known)


def _commit(found: contents.Commit | None) -> str:
  if found is None or not found.sha:
    return html.NOTHING
  return f'{found.sha[:10]}{", dirty" if found.dirty else ""}'
