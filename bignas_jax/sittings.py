"""What a run took, from its card, as a section of the report."""

from typing import Any

from bignas_jax import page
from bignas_jax.records import Run


def section(run: Run) -> str:
  """Nothing, if the run has no card."""
  card = run.card
  if card is None:
    return ''
  sittings = card.get('sittings') or []
  told = (
    f'{card.get("status") or page.NOTHING}: step '
    f'{page.integer(card.get("step"))} of {page.integer(card.get("of"))}; '
    f'{page.integer(card.get("images"))} images in {_duration(card)}, '
    'compiling, evaluating and saving included.'
  )
  head = ['started', 'status', 'steps', 'time', 'devices', 'hosts', 'commit']
  rows = [
    [
      str(one.get('started') or page.NOTHING),
      str(one.get('status') or page.NOTHING),
      f'{page.integer(one.get("first_step"))} to '
      f'{page.integer(one.get("step"))}',
      _duration(one),
      f'{page.integer(one.get("devices"))} {one.get("device_kind") or ""}',
      ' '.join(map(str, one.get('hosts') or [])),
      _commit(one),
    ]
    for one in sittings
  ]
  caption = 'Each start of the training command. A dirty commit: changed files.'
  return page.section(
    'What it took', page.p(told) + page.table(head, rows, caption)
  )


def _duration(card: dict[str, Any]) -> str:
  hours = page.number(card.get('hours'))
  return page.NOTHING if hours is None else page.duration(3600 * hours)


def _commit(one: dict[str, Any]) -> str:
  found = one.get('commit')
  if not found:
    return page.NOTHING
  dirty = ', dirty' if found.get('dirty') else ''
  return f'{str(found.get("sha"))[:10]}{dirty}'
