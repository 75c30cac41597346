"""Devices and limits that a person asks for, as requests of searches."""

from bignas_jax import fit
from bignas_jax.fitting import fitting, wishes
from bignas_jax.selection.child_costs import Memory
from bignas_jax.spaces import zoo


def test_flags_become_requests(monkeypatch):
  """Also the batch and the precision that memory is counted with."""
  monkeypatch.setattr(fitting, 'fit', lambda asked, workdir: {'asked': asked})
  arguments = ['--images=here', '--workdir=there', '--max_memory_bytes=1e6']
  arguments += ['--memory_batch=8', '--memory_precision=int8', '--max_macs=2e6']
  asked = fit.main([*arguments, '--max_macs=3e6'])['asked']
  found = wishes.requests(asked.wishes, zoo.MNIST, [])
  assert [one.memory for one in found] == [Memory(8, 'int8')] * 2
  assert [one.limits.to_dict() for one in found] == [
    {'max_macs': macs, 'max_memory_bytes': 1e6} for macs in (2e6, 3e6)
  ]


def test_memory_is_counted_as_asked_without_limits_too():
  """It is a column of the recommended children."""
  asked = wishes.Wishes([], {}, Memory(4, 'float16'))
  found = wishes.requests(asked, zoo.MNIST, [])
  assert {one.memory for one in found} == {Memory(4, 'float16')}
