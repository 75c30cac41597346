"""What a pod would need: what is counted, and what the compiler says."""

import dataclasses
import importlib.util
import itertools
import json

import jax
import pytest
import tiny
from etils import epath

from bignas_jax import cli, compile
from bignas_jax.costs import counting
from bignas_jax.estimates import chips, compiler_reports, duration, plan
from bignas_jax.methods import loss_graph, programs
from bignas_jax.runs import config as config_lib
from bignas_jax.spaces import arch, pinning, zoo
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.values import errors
from configs import bn_nas, mdenas, once_for_all, parsec, rep_nas

V3 = chips.CHIPS['v3']
needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='pip install libtpu'
)


@pytest.mark.parametrize('topology', ['v3', 'v8:2x2', '', ':2x2'])
def test_unknown_chips(topology):
  with pytest.raises(errors.UserError, match=r'--topology.*v5e, v5p, v6e'):
    chips.of(topology)


def found(seconds=0.0, flops=0.0, moved=0.0):
  return compiler_reports.Report(1.0, 2**30, flops, moved, seconds)


def test_seconds_are_the_compilers_or_the_rooflines():
  assert duration.of_program(found(0.5, 1e15), V3) == 0.5
  # Where the compiler's are unusable, they are negative.
  assert duration.of_program(found(-1, 61.5e12, 45e9), V3) == 1
  assert duration.of_program(found(-1, 61.5e12, 900e9), V3) == 2


def test_children_take_the_biggests_time_by_their_activations():
  """Blocks past the second are in a loop, which the compiler counts once."""
  space = dataclasses.replace(zoo.MNIST, train_resolution=(28,))
  config = tiny.config(space=space, recompute=True)
  biggest = arch.biggest(space)
  rows = counting.rows(space, biggest)
  (third,) = [row for row in rows if row.name == 'stage2.block3']
  whole = counting.total(rows).activations
  once = whole - third.cost.activations
  took = {'biggest': found(3.0), 'update': found(0.25)}
  seconds = duration.seconds(config, V3, took)
  assert seconds['update'] == 0.25
  assert seconds['biggest'] == pytest.approx(3 * whole / once)
  smallest = counting.cost(space, arch.smallest(space)).activations
  assert seconds['smallest'] == pytest.approx(3 * smallest / once)
  assert seconds['smallest'] < seconds['random@28'] < seconds['biggest']
  step = seconds['biggest'] + seconds['smallest'] + 2 * seconds['random@28']
  assert duration.step_seconds(config, seconds) == pytest.approx(step + 0.25)


def test_a_network_alone_takes_its_own_time():
  space = pinning.pin(tiny.SPACE, arch.smallest(tiny.SPACE))
  config = tiny.config(space=space, policy='alone')
  took = {'biggest': found(3.0), 'update': found(0.25)}
  seconds = duration.seconds(config, V3, took)
  assert seconds == {'biggest': 3.0, 'update': 0.25}
  assert duration.step_seconds(config, seconds) == 3.25
  # So do a sandwich's two ends, without anything in between.
  two = tiny.config(random_children=0)
  seconds = duration.seconds(two, V3, took)
  assert set(seconds) == {'biggest', 'smallest', 'update'}
  assert duration.step_seconds(two, seconds) == sum(seconds.values())


def test_teachers_that_are_no_children_take_their_time():
  edges = loss_graph.Rule().edges
  both = loss_graph.Mean(name='both', of=('biggest', 'smallest'))
  edges += (loss_graph.Edge(student='smallest', teacher='both'),)
  rule = loss_graph.Rule(edges=edges, means=(both,))
  config = tiny.config(random_children=0, rule=rule)
  forward = {'forward:biggest': found(1.0), 'forward:smallest': found(0.5)}
  took = {'biggest': found(3.0), 'update': found(0.25), **forward}
  seconds = duration.seconds(config, V3, took | {'mean:both': found(0.125)})
  assert set(seconds) == {*took, 'smallest', 'mean:both'}
  assert duration.step_seconds(config, seconds) == sum(seconds.values())


def test_without_static_children_the_biggest_is_compiled_for_its_time():
  """And a step has as many children as its phases have, on the whole."""
  config = once_for_all.get_config('small')
  assert not config_lib.policy(config).static
  took = {'update': found(0.25), 'start': found(0.125)}
  assert duration.seconds(config, V3, took) == {}
  assert duration.step_seconds(config, {}) is None
  broken = {duration.ALONE: compiler_reports.Report(1.0, None, problem='big')}
  assert duration.seconds(config, V3, took | broken) == {}
  seconds = duration.seconds(config, V3, took | {duration.ALONE: found(3.0)})
  assert set(seconds) == {*took, 'random@28'}
  assert seconds['random@28'] < 4
  children = (100 * 1 + 40 * 2 + 40 * 2 + 40 * 4 + 80 * 4) / 300
  step = 0.375 + children * seconds['random@28']
  assert duration.step_seconds(config, seconds) == pytest.approx(step)


@pytest.mark.parametrize('system', [once_for_all, bn_nas, rep_nas, parsec])
def test_the_biggest_child_can_be_trained_alone(system):
  config = plan._biggest(system.get_config('small'))
  listed = programs.all_programs(config_lib.setup(config_lib.check(config)))
  assert [one.name for one in listed] == ['biggest', 'update']


def test_children_that_are_only_scored_take_their_time():
  took = {'biggest': found(3.0), 'update': found(0.25)}
  config = tiny.config(space=tiny.QUICK, policy='best_up', candidates=5)
  seconds = duration.seconds(config, V3, took)
  assert seconds['score@8'] == pytest.approx(seconds['random@8'] / 3 / 1.21)
  trained = tiny.config(space=tiny.QUICK)
  less = duration.step_seconds(trained, duration.seconds(trained, V3, took))
  step = duration.step_seconds(config, seconds)
  assert less is not None
  assert step == pytest.approx(less + 2 * 5 * seconds['score@8'])
  # PARSEC scores its children twice; MDENAS measures one, after an epoch.
  took = {duration.ALONE: found(3.0), 'update': found(0.25)}
  for system, children, scored in ((parsec, 4, 8), (mdenas, 1, 2 / 5)):
    config = system.get_config('small')
    seconds = duration.seconds(config, V3, took)
    step = 0.25 + children * seconds['random@28'] + scored * seconds['score@28']
    assert duration.step_seconds(config, seconds) == pytest.approx(step)


def test_random_children_alone_compute_twice():
  space = dataclasses.replace(zoo.MNIST, train_resolution=(28,))
  took = {'biggest': found(3.0), 'update': found(0.25)}
  seconds = duration.seconds(tiny.config(space=space), V3, took)
  assert seconds['biggest'] == pytest.approx(3)
  again = tiny.config(space=space, recompute=True)
  expected = duration.seconds(again, V3, took)
  by_both = [s['random@28'] / s['biggest'] for s in (seconds, expected)]
  assert by_both[0] == pytest.approx(1.21 * by_both[1])


def test_activations_by_hand():
  """A stem of 4x4x8, two 1x1 and one depthwise convolution, a classifier."""
  stage = dataclasses.replace(
    tiny.SPACE.stages[0], width=(8,), depth=(1,), kernel_size=(3,), se=None
  )
  space = dataclasses.replace(
    tiny.SPACE,
    resolution=(8,),
    train_resolution=(8,),
    stages=(stage,),
    head_width=(16,),
  )
  found = counting.cost(space, arch.smallest(space)).activations
  stem, expand = 4 * 4 * 8, 4 * 4 * 16
  depthwise, project, head = 2 * 2 * 16, 2 * 2 * 8, 2 * 2 * 16
  assert found == stem + expand + depthwise + project + head + 10


def test_the_state_and_a_copy_of_it_lie_beside_each_program():
  """A save copies the state; the next step may run before it is on the disk."""
  config = tiny.config(space=tiny.QUICK, ema_decay=0.5)
  setup = config_lib.setup(config, mesh_lib.create(jax.devices()[:2]))
  listed = programs.all_programs(setup)
  state, *_ = listed[-1].arguments
  size = lambda tree: sum(4 * leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
  params = size(state.params)
  assert size(state.ema) == params and size(state.opt_state) >= 2 * params
  beside = plan._bystanders(listed)
  assert set(beside) == {program.name for program in listed}
  for program in listed:
    mine = {id(leaf) for leaf in jax.tree.leaves(program.arguments)}
    rest = [leaf for leaf in jax.tree.leaves(state) if id(leaf) not in mine]
    assert beside[program.name] == size(rest) + size(state), program.name
  said = ' '.join(duration.ASSUMPTIONS)
  assert 'a copy of the state, which is being saved' in said


def run(tmp_path, *arguments):
  config = tmp_path / 'config.py'
  config.write_text('import tiny\n\nget_config = tiny.config\n')
  out = tmp_path / 'out.json'
  status = cli.status(
    compile.main, [f'--config={config}', f'--out={out}', *arguments]
  )
  return status, out


def test_bad_topologies(tmp_path, capsys):
  status, out = run(tmp_path, '--topology=v9:2x2')
  assert status == 2 and not out.exists()
  assert '--topology' in capsys.readouterr().err


def test_the_result_has_a_place_before_anything_is_compiled(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(plan, 'plan', None)
  mine = tmp_path / 'mine.json'
  mine.write_text('{"mine": 1}')
  for place in (tmp_path, '/proc/out.json', '/dev/null', mine):
    capsys.readouterr()
    assert run(tmp_path, '--topology=v3:2x2', f'--out={place}')[0] == 2
    told = capsys.readouterr().err
    assert told.count('\n') == 1 and f"--out: got '{place}'" in told
  assert mine.read_text() == '{"mine": 1}'


def test_what_does_not_fit_is_status_1(tmp_path, monkeypatch, capsys):
  result = {'fits': False, 'largest_batch_size': 24}
  monkeypatch.setattr(plan, 'plan', lambda *_: result)
  status, out = run(tmp_path, '--topology=v3:2x2')
  assert status == errors.FAILED == 1
  assert json.loads(out.read_text()) == result
  printed = capsys.readouterr()
  assert json.loads(printed.out) == result
  assert 'a batch of 16 does not fit v3:2x2' in printed.err
  assert 'the largest that would: 24' in printed.err


@pytest.mark.parametrize('fixed', [0, 300])
def test_the_largest_batch_is_found_along_the_line(fixed):
  """Memory of `fixed` and 10 an image: exactly as many as 1000 has room for."""
  asked = []

  def peak(images):
    asked.append(images)
    used = fixed + 10 * images
    return used if used <= 1000 else None

  assert plan._aim(peak, 1000, range(1, 512)) == (1000 - fixed) // 10
  assert len(asked) <= 6
  # Where groups of images allow fewer numbers, the largest of those.
  assert plan._aim(peak, 1000, [*range(1, 8), 16, 32, 48, 64, 96]) == (
    96 if not fixed else 64
  )
  assert plan._aim(peak, 1000, [4, 300]) == 4
  for possible in range(1, 512), [], [1], [3, 4]:
    assert plan._aim(lambda images: None, 1000, possible) == 0


@needs_libtpu
def test_a_batch_that_does_not_fit(tmp_path, capsys, monkeypatch):
  """The real compiler, for a core of little memory."""
  small = V3._replace(hbm_bytes=24 * 2**20)
  monkeypatch.setitem(chips.CHIPS, 'v3', small)
  status, out = run(tmp_path, '--topology=v3:2x2', '--config.batch_size=4096')
  result = json.loads(out.read_text())
  assert status == errors.FAILED and not result['fits']
  worst = max(program['peak_bytes'] for program in result['programs'])
  assert worst > small.hbm_bytes
  largest = result['largest_batch_size']
  assert 0 < largest < 4096 and largest % 8 == 0
  assert f'the largest that would: {largest}' in capsys.readouterr().err
  again = [f'--config.batch_size={largest}', '--topology=v3:2x2']
  assert run(tmp_path, *again)[0] == 0


@needs_libtpu
def test_a_tiny_run_on_v3(tmp_path):
  status, out = run(tmp_path, '--topology=v3:2x2')
  result = json.loads(out.read_text())
  assert status == 0 and result['fits'] and result['devices'] == 8
  expected = [p['name'] for p in result['programs']]
  space = tiny.SPACE
  random = [f'random@{size}' for size in space.train_resolution]
  assert expected == ['biggest', 'smallest', *random, 'update']
  for program in result['programs']:
    assert 0 < program['peak_bytes'] < program['hbm_bytes'] == 16 * 2**30
    assert program['estimated_s'] > 0
  hours = result['estimated_step_s'] * tiny.config().steps / 3600
  assert result['estimated_hours'] == pytest.approx(hours)


def test_a_program_is_compiled_once_for_a_topology(tmp_path, monkeypatch):
  compiled = []
  monkeypatch.setattr(
    compiler_reports, 'directory', lambda: epath.Path(tmp_path, 'kept')
  )
  monkeypatch.setattr(compiler_reports.metadata, 'version', lambda _: '1.0')
  monkeypatch.setattr(
    compiler_reports, '_compile', lambda one: compiled.append(one) or found(2.0)
  )
  one, other = (jax.jit(lambda x, n=n: x + n).lower(1.0) for n in (1, 2))
  small, big = (mesh_lib.create(jax.devices()[:n]) for n in (1, 2))
  assert compiler_reports.find('a', one, small) == found(2.0)
  kept = dataclasses.replace(found(2.0), kept=True)
  assert compiler_reports.find('b', one, small) == kept
  assert compiled == [one]
  compiler_reports.find('a', other, small)
  compiler_reports.find('a', one, big)
  monkeypatch.setattr(compiler_reports.metadata, 'version', lambda _: '1.1')
  compiler_reports.find('a', one, small)
  assert compiled == [one, other, one, one]


@needs_libtpu
def test_figures_are_kept(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(
    compiler_reports, 'directory', lambda: epath.Path(tmp_path, 'kept')
  )
  status, out = run(tmp_path, '--topology=v3:2x2')
  first, printed = json.loads(out.read_text()), capsys.readouterr().err
  assert status == 0 and 'compiled in' in printed and 'known' not in printed
  monkeypatch.setattr(compiler_reports, '_compile', None)
  assert run(tmp_path, '--topology=v3:2x2')[0] == 0
  again = json.loads(out.read_text())
  assert all(one.pop('kept') for one in again['programs'])
  assert not any(one.pop('kept') for one in first['programs'])
  assert again == first
  assert 'compiled in' not in capsys.readouterr().err


@needs_libtpu
@pytest.mark.parametrize('topology', ['v3:8x8', 'v5e:4x4', 'v5p:2x2x2'])
def test_hosts_of_a_slice_have_each_row_of_a_batch_once(topology):
  """Whatever order the mesh has: in those of v5e and v5p, hosts take turns."""
  for layout in None, mesh_lib.Layout(axes=('a', 'b'), sizes=(2, -1)):
    mesh = plan.topology_mesh(topology, layout)
    hosts = {device.process_index for device in mesh.devices.flat}
    images = 4 * mesh.size
    parts = [mesh_lib.rows(mesh, images, host) for host in sorted(hosts)]
    assert sorted(itertools.chain(*parts)) == [*range(images)]
    assert len({len(part) for part in parts}) == 1
  # A part of a slice, for which JAX has no order.
  assert mesh_lib.create(list(mesh.devices.flat)[:3]).size == 3
