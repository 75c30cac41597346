"""The training of a supernet or of one network, from config to checkpoints.

space -> shapes -> compiled programs -> initialise or restore -> for each
step: sample children, train them, update -> log, checkpoint, evaluate.
"""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from etils import epath

from bignas_jax.data import identity as identity_lib
from bignas_jax.data import loader, pipeline, sources
from bignas_jax.methods import programs, teachers, teaching
from bignas_jax.methods import step as step_lib
from bignas_jax.methods.step import State
from bignas_jax.policies import policies
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_record as record
from bignas_jax.runs import (
  directory,
  metrics,
  restore,
  run_card,
  trackers,
  warm_start,
)
from bignas_jax.runs.checkpoints import Checkpoints
from bignas_jax.runs.config import Config
from bignas_jax.system import cluster, console, process, stopping, xla
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import learner, recovery, states
from bignas_jax.training import monitor as monitor_lib
from bignas_jax.training.divergence import Diverged
from bignas_jax.values import errors


def train(config: Config, workdir: epath.Path) -> dict[str, Any]:
  """Trains from the newest checkpoint, or from step 0, to the last step.

  Args:
    config: a checked config.
    workdir: made if missing; must not belong to another config.

  Returns:
    The step reached, and the last evaluation (`Config.eval_every`).

  Raises:
    UserError: config, data or workdir is wrong; nothing was written yet.
    Preempted: SIGTERM or SIGINT came; the state is saved.
    Failed: the disk is full, or the run has diverged too often.
  """
  cluster.join(preemptible=True)
  config = cluster.each(lambda: _resolved(config, workdir))
  with stopping.StopRequest() as stop:
    return _train(config, workdir, stop)


def _resolved(config: Config, workdir: epath.Path) -> Config:
  return config_lib.check(warm_start.resolve(config, workdir))


def _train(config, workdir, stop) -> dict[str, Any]:
  name, fields = record.sha256(config), record.to_dict(config)
  cluster.same('config', name, fields)
  cluster.once(lambda: directory.check_place(workdir))
  cluster.once(lambda: trackers.check(config, workdir))
  setup, splits = cluster.each(lambda: _described(config))
  identity = cluster.each(lambda: identity_lib.describe(splits))
  cluster.same('data.directory', config.data.directory, identity)
  claimed = _claimed(workdir, config, splits)
  with recovery.full_disk_as_failed(workdir), claimed:
    xla.keep_programs(workdir / 'compiled')
    with run_card.session(workdir, config) as card:
      return _Run(config, setup, splits, workdir, card).train(stop)


def _described(config: Config) -> tuple[step_lib.Setup, sources.Splits]:
  """Returns the run's setup and images; every host checks that it has them."""
  setup = config_lib.setup(config)
  splits = sources.load(config.data, setup.model.space.channels)
  identity_lib.check_classes(splits, setup.model.space.classes)
  return setup, splits


@contextlib.contextmanager
def _claimed(
  workdir: epath.Path, config: Config, splits: sources.Splits
) -> Iterator[None]:
  """Holds the run's directory for this config; the first process locks it."""
  with contextlib.ExitStack() as held:

    def claim():
      held.enter_context(directory.lock(workdir))
      directory.claim(workdir, config, splits)

    cluster.once(claim)
    cluster.same('workdir', str(workdir), directory.claimed(workdir))
    yield


class _Run:
  """One process's share of a training run."""

  def __init__(self, config, setup, splits, workdir, card):
    self.config, self.workdir = config, workdir
    self.setup = teaching.placed(setup)
    self.classes = splits.train.classes
    self.card = card
    shared = {
      'batch_size': config.batch_size,
      'resolution': setup.model.image_size,
      'seed': config.seed,
      'rows': mesh_lib.rows(setup.model.mesh, config.batch_size),
    }
    train, data = splits.train, config.data
    self.batches = pipeline.train_batches(train, data, **shared)
    second = None
    if setup.policy.second_batches:
      second = pipeline.second_batches(splits.second, data, **shared)
    self.learner = learner.Learner(self.setup, second)
    self.evaluator = restore.evaluator(config, setup.model, splits, splits.test)
    self.lineage = recovery.Lineage(config, workdir)
    self.compiled: dict[str, Any] | None = None
    console.say(monitor_lib.overview(config))

  def train(self, stop: stopping.StopRequest) -> dict[str, Any]:
    while True:
      try:
        return self._from_checkpoint(stop)
      except Diverged as trouble:
        self.lineage.roll_back(trouble)
      except stopping.Stopped:
        raise errors.Preempted(
          'saved; to be evaluated when it goes on'
        ) from None

  def _from_checkpoint(self, stop: stopping.StopRequest) -> dict[str, Any]:
    """Trains from the newest checkpoint to the last step."""
    config = self.config
    checkpoints = Checkpoints(
      self.workdir, config.keep_checkpoints, config.checkpoint_every
    )
    # `exiting_with_the_others` is inside `closing`, since closing waits for
    # saves of all processes, which a lost one never makes.
    with self.closing(checkpoints), process.exiting_with_the_others():
      with stop.promptly(self.leave):
        weights = functools.partial(warm_start.weights, config, self.classes)
        state, self.learner.state = states.restore_or_init(
          self.setup, checkpoints, weights
        )
        start = int(state.step)
        if start < config.steps and self.compiled is None:
          self.compiled = self.compile()
      self.lineage.start(checkpoints.notes(start))
      with contextlib.closing(self._writer(start)) as writer:
        if start < config.steps:
          state, last = self.steps(state, checkpoints, writer, stop)
        else:
          with self.card.doing('evaluating'):
            last = self.evaluate(state, stop)
          if recovery.owes_evaluation(config, self.workdir, start):
            writer.write(start, last)
    return {'workdir': str(self.workdir), 'step': int(state.step)} | last

  @contextlib.contextmanager
  def closing(self, checkpoints: Checkpoints) -> Iterator[None]:
    try:
      yield
    finally:
      with self.card.doing('saving'):
        checkpoints.close()

  def leave(self) -> NoReturn:
    """Ends the process, which has nothing to save; callable from any thread."""
    try:
      self.card.end('preempted')
    finally:
      console.leave_preempted()

  def compile(self) -> dict[str, Any]:
    began = time.monotonic()
    with console.busy('compiling'), self.card.doing('compiling'):
      compiled = programs.compile_all(programs.all_programs(self.setup))
    took = time.monotonic() - began
    console.say(f'compiled {len(compiled)} programs in {took:.0f} s')
    return compiled

  def _writer(self, start: int) -> metrics.Writer | metrics.NoWriter:
    if process.leads():
      others = trackers.follow(self.config, self.workdir, start)
      return metrics.Writer(self.workdir, start, others)
    return metrics.NoWriter()

  def steps(self, state, checkpoints, writer, stop):
    """Runs the remaining steps; returns the state and the last evaluation."""
    config, mesh, lineage = self.config, self.setup.model.mesh, self.lineage
    start, compiled = int(state.step), self.compiled
    assert compiled is not None
    if stop.due():
      raise errors.Preempted(f'at step {start} of {config.steps}, none lost')
    progress = console.Progress('train', config.steps, start)
    monitor = monitor_lib.Monitor(
      config, self.workdir, progress, self.card, start
    )

    def evaluated(done, state):
      with monitor.doing('evaluating'):
        values = self.evaluate(state, stop)
      writer.write(done, values)
      monitor.tell(done, values)
      return values

    if recovery.owes_evaluation(config, self.workdir, start):
      evaluated(start, state)
    values, split, saved = {}, mesh_lib.split(mesh), start
    stream = loader.stream(self.batches, lineage.draws(start))
    learning = self.learner.started(start, compiled)
    with contextlib.closing(stream), learning, progress, monitor:
      for done in range(start + 1, config.steps + 1):
        last = done == config.steps
        logged = last or done % config.log_every == 0
        due = last or done % config.checkpoint_every == 0
        with monitor.step(done):
          state = programs.before_step(self.setup, compiled, state, done - 1)
          draw, batch = monitor.next(stream)
          batch = mesh_lib.put(mesh, batch, split)
          children = self.learner.sample(draw, state, batch)
          state, measured = programs.step(
            self.setup, compiled, state, batch, children, logged or due
          )
        monitor.handed_over(done, measured)
        measured = self.learner.learn(done, state, children, measured)
        ending = stop.due() and not last
        lineage.look(done, children, measured)
        checkpoints.check()
        if logged:
          writer.write(done, monitor.line(done, children, measured))
        if due or ending:
          lineage.settle()
          with monitor.doing('saving'):
            self.save(checkpoints, done, state)
          saved = done
        if ending:
          raise errors.Preempted(f'saved step {done} of {config.steps}')
        if last or done % config.eval_every == 0:
          try:
            values = evaluated(done, state)
          except stopping.Stopped:
            if saved != done:
              lineage.settle()
              with monitor.doing('saving'):
                self.save(checkpoints, done, state)
            raise
    return state, values

  def save(self, checkpoints: Checkpoints, step: int, state: State) -> None:
    """Starts to save the states after a step that `settle` has checked."""
    held = states.joined(state, self.learner.state)
    checkpoints.save(step, held, self.lineage.notes())

  def evaluate(
    self, state: State, stop: stopping.StopRequest
  ) -> dict[str, float]:
    """Returns calibrated test accuracies of the children that a run evaluates.

    Raises:
      Stopped: a signal came; the resumed run evaluates first.
    """
    params = state.params if state.ema is None else state.ema
    params = teachers.of_network(params)
    params = mesh_lib.whole(self.setup.model.mesh, params)
    space, learnt = self.setup.model.space, self.learner.state
    fixed = policies.evaluated(self.setup.policy, space, learnt)
    states.keep_learnt(self.workdir, fixed)
    values = {}
    with stop.raising() as check:
      with self.card.doing('compiling'):
        self.evaluator.compile(arch.resolution for arch in fixed.values())
      for role, arch in fixed.items():
        check()
        score = self.evaluator.score(params, arch)
        values[f'eval/{role}/top1'] = score.top1
        values[f'eval/{role}/top5'] = score.top5
    return values
