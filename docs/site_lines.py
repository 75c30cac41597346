"""Where the site breaks lines in code that is inside a sentence or a table.

A browser breaks `--workdir` after its "--". It breaks no path, so that a table
of paths is too wide for a phone. The reference's template has a space before
the ")" after a default, so that a line may begin with it.
"""

import re

# Code that is no block, and has no link inside.
CODE = re.compile(r'(?<!</span>)<code>([^<]*)</code>')
OPTION = re.compile(r'(?<!\S)--\w+')
END = re.compile(r'(?<=\w)[/=](?=\w)')  # after these a line may end
BEFORE_CLOSING = re.compile(r'(?<=</code>)\s+(?=\))')


def breakable(html):
  """Returns a page whose code is broken after / and =, not inside "--NAME"."""

  def with_breaks(match):
    text = END.sub(r'\g<0><wbr>', match[1])
    return f'<code>{OPTION.sub(_unbroken, text)}</code>'

  return CODE.sub(with_breaks, html)


def closed(html):
  """Returns a page without space between code and a ")"."""
  return BEFORE_CLOSING.sub('', html)


def _unbroken(match):
  return f'<span class="option">{match[0]}</span>'


def on_page_content(html, **_):
  """Changes a page; MkDocs calls it."""
  return breakable(closed(html))
