"""The layout of `--help`: a command's description and its flags."""

import re
import textwrap

_COLUMNS = 80

# Text of absl's help, and what stands there instead: no headings of modules,
# nothing of a default that is none, and other defaults as a user writes them.
_INSTEAD = {
  r'^\S.*:\n': '',
  r"\n +\(default: '(None|\[\])?'\)": '',
  r'\n +\(a (number|comma separated list)\)': '',
  r"\(default: '\[?([^']*?)\]?'\)": r'(default: \1)',
  r';\n +repeat this option to specify a list of values': (
    ';\n    may be given several times'
  ),
}


def layout(description: str, of_flags: str) -> str:
  """Returns what `--help` prints after the usage.

  Args:
    description: description of the command, in paragraphs.
    of_flags: absl's help of its flags.
  """
  for pattern, text in _INSTEAD.items():
    of_flags = re.sub(pattern, text, of_flags, flags=re.MULTILINE)
  paragraphs = description.strip().split('\n\n')
  lines = (textwrap.fill(' '.join(p.split()), _COLUMNS) for p in paragraphs)
  return '\n\n'.join([*lines, of_flags.strip('\n')])
