"""python -m bignas_jax.fit: from images to a child for each device."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.fitting import fitting
from bignas_jax.fitting.wishes import Wishes
from bignas_jax.selection import child_costs
from bignas_jax.selection.child_costs import Memory
from bignas_jax.values import schema

_WORDS = """\
Makes networks for your images: looks at them, chooses a config that can be
trained in the given time on this machine, and says why; trains a supernet;
searches it for the best child for each device and limit; exports each as ONNX,
compares it with the child, and writes DIR/report.html.

DIR/config.py is an ordinary config: edit a copy of it, and train that with
`main`. Interrupted, the same command goes on where it stopped. It can be given
again with other devices and limits, once it has ended: it then searches anew
and does not train again.

Without limits and tables, it measures a latency table of this machine, and
makes a child for each of three limits on the latency and on the multiply-adds.
Tables and limits may be given several times, as for `search`.
"""


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Makes a child for each device and limit; returns what is recommended."""
  given = cli.parse('fit', _WORDS, _define, arguments)
  bounds = cli.bounds(given, child_costs.NAMES)
  memory = Memory(given.memory_batch, given.memory_precision)
  wishes = Wishes(given.latency_table or [], bounds, memory)
  asked = fitting.Asked(given.images, given.minutes, wishes)
  return fitting.fit(asked, given.workdir)


def _define(values: flags.FlagValues) -> None:
  text = 'a folder with train/CLASS/* and test/CLASS/*, or with CLASS/*; or '
  text += 'tfds:NAME'
  cli.text(values, 'images', None, text, required=True)
  cli.path(values, 'workdir', 'everything goes here', required=True)
  cli.number(values, schema.Positive, 'minutes', 60.0, 'time for everything')
  cli.limits(values, child_costs.NAMES, child_costs.PRECISIONS)
  text = 'a file of benchmark table, of the space in DIR: a device'
  cli.path(values, 'latency_table', text, several=True)


if __name__ == '__main__':
  cli.run(main)
