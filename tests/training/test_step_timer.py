"""How long steps took, by a clock that the test turns."""

import collections

import pytest

from bignas_jax.training import step_timer


class _Run:
  """Devices that need a second a step, one after the other."""

  def __init__(self, monkeypatch, seconds=1.0):
    self.now, self.told, self.ended, self.waited_for = 0.0, [], [], []
    self.seconds = collections.defaultdict(lambda: seconds)
    self.free = 0.0  # when the devices will be
    self.timer = step_timer.StepTimer(
      self.told.append, self.ended.append, lambda: self.now
    )
    monkeypatch.setattr(step_timer.jax, 'block_until_ready', self._wait)

  def _wait(self, step):
    self.waited_for.append(step)
    self.now = max(self.now, self.ends[step])

  def run(self, first, last, host=0.01, images=0.0):
    self.ends = getattr(self, 'ends', {})
    for step in range(first, last + 1):
      self.timer.next(self._images(images))
      self.now += host
      begins = max(self.now, self.free)
      self.free = self.ends[step] = begins + self.seconds[step]
      self.timer.handed_over(step, step)

  def _images(self, seconds):
    self.now += seconds
    yield None


def test_a_step_takes_what_the_devices_take(monkeypatch):
  run = _Run(monkeypatch)
  run.run(1, 20)
  values = run.timer.values(batch_size=8)
  assert values['time/step_s'] == pytest.approx(1)
  assert values['time/step_max_s'] == pytest.approx(1.01)  # the first
  assert values['images_per_s'] == pytest.approx(8 * 20 / 20.01)
  assert values['time/input_wait'] == 0
  assert run.told == []


def test_one_step_is_under_way_while_the_next_is_handed_over(monkeypatch):
  run = _Run(monkeypatch)
  run.run(1, 3)
  assert run.waited_for == [1, 2], 'the devices would stand still'
  assert run.timer.ended == 2
  run.timer.settle()
  assert run.waited_for == [1, 2, 3]


def test_images_that_come_late_are_most_of_a_step(monkeypatch):
  run = _Run(monkeypatch, seconds=0.1)
  run.run(1, 20, images=1.0)
  values = run.timer.values(batch_size=8)
  assert values['time/step_s'] == pytest.approx(1.01)
  assert 0.95 < values['time/input_wait'] < 1


def test_images_that_come_in_time_change_nothing(monkeypatch):
  run = _Run(monkeypatch)
  run.run(1, 20, images=0.1)
  values = run.timer.values(batch_size=8)
  assert values['time/step_s'] == pytest.approx(1)
  assert values['time/input_wait'] == pytest.approx(0.1, rel=0.05)


def test_a_slow_step_is_told_once_with_its_number(monkeypatch):
  run = _Run(monkeypatch)
  run.seconds[15] = 5.0
  run.seconds[16] = 2.5  # not several times the median
  run.run(1, 30)
  assert run.told == [
    'slow: step 15 took 5.00 s, 5 times the median; 0.00 s of it waiting for '
    'images'
  ]
  assert run.timer.values(batch_size=8)['time/step_max_s'] == pytest.approx(5)


def test_many_slow_steps_are_told_in_two_lines(monkeypatch):
  run = _Run(monkeypatch)
  run.seconds |= {15: 5.0, 17: 7.0, 19: 6.0, 25: 5.0}
  run.run(1, 20)
  run.timer.values(batch_size=8)
  run.run(21, 30)
  run.timer.values(batch_size=8)
  first, more, next_line = run.told
  assert first.startswith('slow: step 15 took 5.00 s')
  assert more == (
    'slow: 2 more of the last 20 steps, the longest 17 with 7.00 s'
  )
  assert next_line.startswith('slow: step 25 took 5.00 s')


def test_a_jitter_that_nobody_notices_is_not_told(monkeypatch):
  run = _Run(monkeypatch, seconds=0.01)
  run.seconds[15] = 0.09
  run.run(1, 30, host=0.001)
  assert run.told == []


def test_a_pause_is_no_steps_time(monkeypatch):
  run = _Run(monkeypatch)
  run.run(1, 15)
  with run.timer.pause():
    assert run.timer.ended == 15
    run.now += 100
  run.run(16, 30)
  assert run.told == []
  values = run.timer.values(batch_size=8)
  assert values['time/step_max_s'] == pytest.approx(1.01)
  assert values['images_per_s'] == pytest.approx(8, rel=0.01)


def test_values_are_of_the_steps_since_the_last_line(monkeypatch):
  run = _Run(monkeypatch)
  run.seconds[1] = 7.0
  run.run(1, 5)
  assert run.timer.values(8)['time/step_max_s'] > 7
  run.run(6, 7)
  assert run.timer.values(8)['time/step_max_s'] == pytest.approx(1.01)
