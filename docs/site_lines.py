"""Where the site breaks lines: in code inside a sentence, and in tables.

A browser breaks `--workdir` after its "--". It breaks no path, so that a table
of paths is too wide for a phone. The reference's template has a space before
the ")" after a default, so that a line may begin with it. A table that is wide
leaves its sentences a word a line: `site.css` gives them a width.
"""

import re

# Code that is no block, and has no link inside.
CODE = re.compile(r'(?<!</span>)<code>([^<]*)</code>')
OPTION = re.compile(r'(?<!\S)--\w+')
END = re.compile(r'(?<=\w)[/=](?=\w)')  # after these a line may end
CELL = re.compile(r'<(t[dh])>(.*?)</\1>', re.DOTALL)
SENTENCE = 40  # characters
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


def with_sentences(html):
  """Returns a page whose tables mark long cells, and break no percentage."""

  def marked(match):
    tag, text = match[1], re.sub(r'(?<=\d) (?=%)', '&nbsp;', match[2])
    is_long = len(re.sub(r'<[^>]*>', '', match[2])) >= SENTENCE
    name = ' class="sentence"' if is_long else ''
    return f'<{tag}{name}>{text}</{tag}>'

  return CELL.sub(marked, html)


def _unbroken(match):
  return f'<span class="option">{match[0]}</span>'


def on_page_content(html, **_):
  """Changes a page; MkDocs calls it."""
  return breakable(closed(with_sentences(html)))
