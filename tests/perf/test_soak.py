"""A service under load, for seconds; `benchmark serve` does it for minutes."""

import collections
import json
import sys

import networks
import pytest
import tiny
from etils import epath

from bignas_jax import benchmark, cli
from bignas_jax.deploy import package as package_lib
from bignas_jax.perf import soak
from bignas_jax.serving import client

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
GOOD = client.kinds(0)['good']


def test_every_kind_gets_its_answer(tmp_path, capsys):
  child = epath.Path(tmp_path) / 'child'
  package_lib.save(child, networks.random_child(tiny.QUICK))
  options = ['--clients=12', '--minutes=0.1', '--max_queue=4']
  command = ['serve', f'--child={child}', *options]
  status = cli.status(benchmark.main, command)
  result = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert result['errors'] == {}
  assert result['refused'] > 0, 'the queue was never full'
  assert 0 < result['p50_ms'] <= result['p99_ms']
  memory = result['memory_mb']
  assert 50 < memory['start'] < 2000
  # Seconds are too few to warm up; nothing else may fail.
  assert status == (memory['growth'] > soak.MOST_GROWTH)
  expected = {n: {str(k.status), '503'} for n, k in client.kinds(0).items()}
  for name, answers in result['answers'].items():
    assert {*answers} <= expected[name]


@pytest.mark.parametrize(
  ('answer', 'errors', 'refused'),
  [
    (client.Answer('200'), [], 0),
    (client.Answer('503', 1.0, 'full'), [], 1),
    (client.Answer('503', 0.0, 'full'), ['good: 503 full'], 0),
    (client.Answer('400', 0.0, 'no'), ['good: 400 no'], 0),
    (client.Answer('ConnectionResetError'), ['good: ConnectionResetError'], 0),
  ],
)
def test_only_a_refusal_with_a_time_to_come_again_is_right(
  answer, errors, refused
):
  tally = soak._Tally()
  tally.note('good', GOOD, answer, 0.1)
  assert [*tally.errors] == errors and tally.refused == refused


@pytest.mark.parametrize(
  ('last', 'left', 'status', 'words'),
  [
    (104, 0, 0, []),
    (106, 0, 0, ['memory grew by 6.0%']),
    (100, 2, 0, ['2 images stayed in the queue']),
    (100, 0, 75, ['the service ended with status 75']),
  ],
)
def test_what_is_wrong_is_said(last, left, status, words):
  tally = soak._Tally(seconds=[0.1])
  memory = soak._memory([100_000_000] * 10 + [last * 1_000_000])
  assert [*soak._wrong(tally, memory, left, status)] == words
  tally.errors = collections.Counter({'good: 500': 2})
  assert '2 wrong answers' in [*soak._wrong(tally, memory, left, status)]
