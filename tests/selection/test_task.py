"""What searches are asked: combinations of tables and limits, and memory."""

import pytest

from bignas_jax.costs import latency
from bignas_jax.costs.limits import Limits
from bignas_jax.selection import child_costs, task
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import zoo
from bignas_jax.strategies.problem import Search
from bignas_jax.values import errors

SPACE = zoo.MNIST


def table(device, ms):
  about = {'device': device, 'runtime': 'jax', 'batch': 1, 'estimate': False}
  layers = latency.all_layers(SPACE, SPACE.resolution)
  entries = dict.fromkeys(layers, ms)
  return latency.Table(SPACE, SPACE.resolution, about, entries)


FAST, SLOW = table('fast', 0.1), table('slow', 10.0)


def test_each_table_is_asked_with_each_value_of_each_limit():
  bounds = {'max_latency_ms': [2, 1, 2], 'max_macs': [1e6], 'max_params': None}
  found = task.requests(bounds, [FAST, SLOW])
  assert [(one.table, one.limits.to_dict()) for one in found] == [
    (device, {'max_latency_ms': ms, 'max_macs': 1e6})
    for device in (FAST, SLOW)
    for ms in (2, 1)
  ]
  assert task.requests({}) == [task.Request()]
  with pytest.raises(errors.UserError, match='--max_macs: got -1'):
    task.requests({'max_macs': [1e6, -1]})


def test_what_no_child_of_a_device_can_keep_names_the_device_and_runtime():
  requests = task.requests({'max_latency_ms': [5.0]}, [FAST, SLOW])
  words = r'^slow \(jax\): --max_latency_ms: got 5'
  with pytest.raises(errors.UserError, match=words):
    task.checked_all(SPACE, 'random', Search(), requests)


def test_memory_is_part_of_a_question_that_depends_on_it():
  served = child_costs.Memory(8, 'int8')
  costs = child_costs.of(SPACE, memory=served)
  least = costs(arch_lib.smallest(SPACE))['memory_bytes']

  def question(limits, memory):
    request = task.Request(limits, memory=memory)
    found = task.checked(SPACE, 'random', Search(), request)
    assert limits.fit(found.costs(found.start))
    return found.question(9, 'some')

  limits = Limits(most={'memory_bytes': 1.5 * least})
  assert question(limits, served)['memory'] == {'batch': 8, 'precision': 'int8'}
  free = Limits(most={'macs': 1e6})
  assert 'memory' not in question(free, served)
  assert question(free, served) == question(free, child_costs.Memory())
  with pytest.raises(errors.UserError, match='--max_memory_bytes'):
    question(Limits(most={'memory_bytes': least - 1}), served)
