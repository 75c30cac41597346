"""What `--help` prints."""

from absl import flags

from bignas_jax import cli
from bignas_jax.values import help_text


def shown(define):
  values = flags.FlagValues()
  define(values)
  of_flags = values.get_help(include_special_flags=False)
  return help_text.layout('One sentence. ' * 10, of_flags)


def test_a_description_has_lines_of_80_columns():
  text = shown(lambda values: cli.path(values, 'out', 'a file'))
  first, second = text.split('\n\n')[0].split('\n')
  assert 60 < len(first) <= 80
  assert second


def test_flags_have_their_defaults_only():
  def define(values):
    cli.path(values, 'out', 'a file', required=True)
    cli.path(values, 'table', 'a table', several=True)
    cli.text(values, 'split', 'test', 'a split')
    cli.text(values, 'data', '', 'a folder')
    cli.text(values, 'arch', None, 'a child')
    cli.number(values, int, 'batch', [8], 'images', several=True)

  lines = shown(define).split('\n\n')[1].split('\n')
  assert lines == [
    '  --arch: a child',
    '  --batch: images',
    '    (default: 8)',
    '  --data: a folder',
    '  --out: a file (required)',
    '  --split: a split',
    '    (default: test)',
    '  --table: a table;',
    '    may be given several times',
  ]
