"""The command `benchmark claims`: its flags."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from bignas_jax.claims import arms, tables, trials, verdicts
from bignas_jax.runs import config_file
from bignas_jax.selection import ranking
from bignas_jax.system import storage
from bignas_jax.values import parsing, schema

_WORDS = (
  "Tries BigNAS's claims at small scale: trains the config, and arms that "
  'differ from it in one thing each, with several seeds, and judges each claim '
  'by a test over seeds. An interrupted command goes on where it stopped. '
  f'Writes DIR/{tables.JSON} and DIR/{tables.MARKDOWN}.'
)


def run(parse: Callable[..., Any], arguments: Sequence[str]) -> dict[str, Any]:
  """Runs the command; returns the contents of `claims.json`.

  Args:
    parse: parses a command's flags (`cli.parse`).
    arguments: arguments of the command.
  """
  define = functools.partial(_define, arguments=arguments)
  given = parse(trials.WHAT, _WORDS, define, arguments, config_file.parse)
  return trials.try_claims(
    given.config,
    storage.path(given.out, '--out'),
    claims=given.claims,
    arms=given.arms,
    seeds=given.seeds,
    children=given.children,
    data=given.data,
    train_images=given.train_images,
  )


def _define(values: flags.FlagValues, arguments: Sequence[str]) -> None:
  config_file.define(values, arguments)
  text = functools.partial(flags.DEFINE_string, flag_values=values)
  text('out', None, 'directory of all runs and of the tables', required=True)
  text('data', '', "directory of the images; the config's if missing")
  for name, names in ('claims', verdicts.CLAIMS), ('arms', arms.ARMS):
    words = f'all if missing; one or more of {",".join(names)}'
    flags.DEFINE_list(name, [], words, flag_values=values)
  for name, kind, default, words in (
    ('seeds', schema.Natural, 3, 'number of runs of each arm'),
    ('children', ranking.Count, 8, 'random children, whose mean is compared'),
    (
      'train_images',
      schema.Natural,
      None,
      'always the same ones; all if missing',
    ),
  ):
    parser = parsing.Parser(kind)
    flags.DEFINE(parser, name, default, words, flag_values=values)
