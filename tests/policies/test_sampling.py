"""Which children a step trains: the attentive policies."""

import collections

import jax
import numpy as np
import pytest
import steps
import tiny

from bignas_jax.costs import cost_buckets, counting
from bignas_jax.methods import losses, programs
from bignas_jax.policies import policies, sampling
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import rollbacks
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, zoo
from bignas_jax.supernet import network
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import loop

SPACE = steps.space_of((8, 12))
WIDTH = 100_000


def macs(space, arch):
  return counting.cost(space, arch).macs


def test_buckets_are_drawn_as_often_as_uniform_children_fall_into_them():
  space = zoo.MNIST
  table = cost_buckets.build(space, WIDTH, 2000)
  assert sum(b.share for b in table.buckets.values()) == pytest.approx(1)
  rng, drawn = arch_lib.generator(1), collections.Counter()
  for _ in range(1000):
    archs = cost_buckets.draw(space, table, 2, rng)
    numbers = {macs(space, arch) // WIDTH for arch in archs}
    assert len(numbers) == 1  # both cost the same
    assert {a.resolution for a in archs} <= set(space.train_resolution)
    drawn.update(numbers)
  for number, bucket in table.buckets.items():
    deviation = np.sqrt(bucket.share / 1000)
    assert abs(drawn[number] / 1000 - bucket.share) < 5 * deviation
  assert len(table.buckets) > 5


@pytest.mark.parametrize(
  ('name', 'best'), [('best_up', min), ('worst_up', max)]
)
def test_the_candidate_of_the_best_or_the_worst_loss_is_trained(name, best):
  policy = sampling.create(zoo.MNIST, name, random_children=2, candidates=4)
  asked = []

  def score(archs):
    asked.append(archs)
    return [-float(macs(zoo.MNIST, arch)) for arch in archs]

  children = policy.sample({}, 0, 7, score)
  assert policy.scored and policies.is_of(policy, children)
  assert children == policy.sample({}, 0, 7, score)
  assert children != policy.sample({}, 0, 8, score)
  slots = asked[0][:4], asked[0][4:]
  for child, slot in zip(children[2:], slots, strict=True):
    assert child.arch in slot
    costs = [-macs(zoo.MNIST, arch) for arch in slot]
    assert -macs(zoo.MNIST, child.arch) == best(costs)


def _config(space=SPACE):
  return tiny.config(space=space, policy='best_up', candidates=3)


def test_a_score_is_the_loss_on_the_whole_batch():
  """Of four devices, by the batch's statistics, against the definition."""
  setup = config_lib.setup(_config(), mesh_lib.create(jax.devices()[:4]))
  wanted = [p for p in programs.all_programs(setup) if 'score' in p.name]
  assert [p.name for p in wanted] == ['score@8', 'score@12']
  compiled = programs.compile_all(wanted)
  mesh, state = setup.model.mesh, steps.perturbed(setup)
  params = jax.device_get(state.params)
  state = mesh_lib.put(mesh, state, mesh_lib.REPLICATED)
  whole = steps.make_batch(0)
  batch = mesh_lib.put(mesh, whole, mesh_lib.split(mesh))
  archs = [arch_lib.smallest(SPACE), arch_lib.biggest(SPACE)]
  ours = programs.scores(setup, compiled, state, batch, archs)
  for arch, loss in zip(archs, ours, strict=True):
    images = setup.model.images(whole['image'], arch.resolution)
    own = network.slice_child(SPACE, {'params': params}, arch)
    net = network.Supernet(pinning.pin(SPACE, arch))
    logits = jax.jit(net.apply)(own, images)
    expected = losses.cross_entropy(logits, jax.numpy.asarray(whole['label']))
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-4)


@pytest.mark.usefixtures('compiled_once')
def test_a_run_by_scores_is_resumed_and_rolled_back(tmp_path, monkeypatch):
  """Its loss becomes NaN in the middle; the same run, stopped or not."""
  step, calls = programs.step, []

  def poisoned(setup, compiled, state, batch, children, norms):
    calls.append(children)
    if len(calls) == 4:
      nan = jax.tree.map(lambda p: p * float('nan'), state.params)
      state = state._replace(params=nan)
    return step(setup, compiled, state, batch, children, norms)

  monkeypatch.setattr(programs, 'step', poisoned)
  config = _config(steps.BASE)
  result = loop.train(config, tmp_path / 'whole')
  (one,) = rollbacks.read(tmp_path / 'whole')
  assert (one.at, one.to) == (4, 2) and 'is nan' in one.reason
  # The children after it are those of other draws, and of the state then.
  assert calls[2] != calls[4] and len(calls) == 8
  again = tmp_path / 'again'
  again.mkdir()
  rollbacks.write(again, [one])
  calls[:] = [None] * 10
  assert loop.train(config, again) == result | {'workdir': str(again)}
  assert tiny.numbers(again) == tiny.numbers(tmp_path / 'whole')


def test_a_sandwich_makes_no_program_that_scores():
  setup = config_lib.setup(tiny.config(space=SPACE))
  assert not any('score' in p.name for p in programs.all_programs(setup))
