"""The page from its templates, which escape all text that they are given."""

import re
import shlex
from typing import Any

import jinja2
import markupsafe

from bignas_jax.reporting import formats
from bignas_jax.values import structs


def inline(svg: str, name: str, caption: str) -> markupsafe.Markup:
  """Returns one of our pictures with identifiers that no other one has."""
  svg = svg[svg.index('<svg') + len('<svg') :]
  svg = re.sub(r'\bid="', f'id="{name}-', svg)
  svg = re.sub(r'(url\(#|href="#)', rf'\g<1>{name}-', svg)
  label = markupsafe.Markup('<svg role="img" aria-label="{}"').format(caption)
  return label + markupsafe.Markup(svg)


def breakable(path: str) -> markupsafe.Markup:
  """Returns a path whose line may be broken after each slash."""
  return markupsafe.escape(path).replace('/', markupsafe.Markup('/<wbr>'))


_TEMPLATES = jinja2.Environment(
  loader=jinja2.PackageLoader('bignas_jax.reporting'),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
  keep_trailing_newline=True,
)
_TEMPLATES.filters |= formats.FILTERS | {
  'breakable': breakable,
  'inline': inline,
  'quoted': shlex.quote,
}


def render(**data: Any) -> str:
  """Returns the page that shows this data."""
  template = _TEMPLATES.get_template('report.html.j2')
  return structs.encodable(template.render(data))
