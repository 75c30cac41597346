"""A long load on the HTTP service of a child: latency, errors, memory.

Clients send good, large, slow, broken and too large requests at once. Every
answer is compared with the one that its request must get. The only other answer
that is allowed is the refusal of a full queue, 503 with Retry-After.
"""

import asyncio
import collections
import contextlib
import dataclasses
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from bignas_jax.serving import client
from bignas_jax.values import errors

_WARM = 0.2  # of the measured time, before it
MOST_GROWTH = 0.05  # of the memory of all processes
_READY_S = 700.0  # in which the service must be ready; it may export first


@dataclasses.dataclass
class _Tally:
  """What the clients got from the service."""

  answers: dict[str, collections.Counter[str]] = dataclasses.field(
    default_factory=lambda: collections.defaultdict(collections.Counter)
  )
  errors: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  refused: int = 0
  seconds: list[float] = dataclasses.field(default_factory=list)
  resident: list[int] = dataclasses.field(default_factory=list)

  def note(
    self, name: str, kind: client.Kind, answer: client.Answer, took: float
  ) -> None:
    self.answers[name][answer.status] += 1
    if answer.status == '503' and answer.retry:
      self.refused += 1
    elif answer.status != str(kind.status):
      self.errors[f'{name}: {answer.status} {answer.detail}'.strip()] += 1
    elif name == 'good':
      self.seconds.append(took)


def soak(
  child: epath.Path, *, clients: int, minutes: float, max_queue: int, seed: int
) -> dict[str, Any]:
  """Serves a child under load, after a fifth of the time to warm up.

  Args:
    child: directory of the child package.
    clients: clients that send requests at once, one after another.
    minutes: time that is measured.
    max_queue: largest queue of the service; less than `clients`, so that some
      are refused.
    seed: seed of images and of their order.

  Raises:
    Failed: an answer was not the right one, memory grew by more than
      `MOST_GROWTH`, or the service did not end in order.
  """
  if sys.platform != 'linux':
    raise errors.UserError('benchmark', 'serve', 'a machine with Linux')
  sent = client.kinds(seed)
  with _service(child, max_queue) as (process, port):
    load = _load(process.pid, port, sent, clients, seed)
    asyncio.run(load(minutes * 60 * _WARM, warm=True))
    tally = asyncio.run(load(minutes * 60))
    left = _left(port)
    process.terminate()
    status = process.wait(60)
  memory = _memory(tally.resident)
  result = {
    'clients': clients,
    'minutes': minutes,
    'max_queue': max_queue,
    'answers': {name: dict(tally.answers[name]) for name in sent},
    'good_per_s': round(len(tally.seconds) / minutes / 60, 1),
    'p50_ms': _percentile(tally.seconds, 50),
    'p99_ms': _percentile(tally.seconds, 99),
    'refused': tally.refused,
    'errors': dict(tally.errors),
    'memory_mb': memory,
  }
  wrong = [*_wrong(tally, memory, left, status)]
  if wrong:
    raise errors.Failed('benchmark serve: ' + '; '.join(wrong), result)
  return result


def _wrong(
  tally: _Tally, memory: dict[str, float], left: int, status: int
) -> Iterator[str]:
  """Yields what was not as it must be."""
  if tally.errors:
    yield f'{tally.errors.total()} wrong answers'
  if not tally.seconds:
    yield 'no good answers'
  if memory['growth'] > MOST_GROWTH:
    yield f'memory grew by {memory["growth"]:.1%}'
  if left:
    yield f'{left} images stayed in the queue'
  if status:
    yield f'the service ended with status {status}'


@contextlib.contextmanager
def _service(
  child: epath.Path, max_queue: int
) -> Iterator[tuple[subprocess.Popen, int]]:
  """Yields the process of a service that is ready, and its port.

  Raises:
    UserError: the service cannot start; says what it said.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  command = [sys.executable, '-m', 'bignas_jax.serve', f'--child={child}']
  options = [f'--port={port}', f'--max_queue={max_queue}']
  with tempfile.TemporaryFile('w+') as log:
    process = subprocess.Popen(
      [*command, *options], stdout=subprocess.DEVNULL, stderr=log
    )
    try:
      _await(process, port, log)
      yield process, port
    finally:
      process.terminate()
      process.wait(60)


def _await(process: subprocess.Popen, port: int, log: Any) -> None:
  end = time.monotonic() + _READY_S
  while process.poll() is None and time.monotonic() < end:
    with contextlib.suppress(OSError):
      if (
        asyncio.run(client.exchange(port, [client.get('/ready')])).status
        == '200'
      ):
        return
    time.sleep(0.2)
  log.seek(0)
  *_, last = ['no answer', *log.read().splitlines()]
  raise errors.UserError.quoted(last.removeprefix('error: '))


def _load(
  pid: int, port: int, sent: dict[str, client.Kind], clients: int, seed: int
) -> Any:
  """Returns a function of seconds that has all clients send requests."""
  names, shares = [*sent], np.array([kind.weight for kind in sent.values()])

  # Warming up, all kinds come as often: memory soon is what it will be.
  weights = {True: np.full(len(shares), 1 / len(shares))}
  weights[False] = shares / shares.sum()

  async def one(number: int, end: float, tally: _Tally, warm: bool) -> None:
    rng = np.random.default_rng((seed, number))
    while time.monotonic() < end:
      name = names[int(rng.choice(len(names), p=weights[warm]))]
      kind = sent[name]
      body = kind.bodies[int(rng.integers(len(kind.bodies)))]
      began = time.perf_counter()
      answer = await client.send(port, kind, body)
      tally.note(name, kind, answer, time.perf_counter() - began)
      await asyncio.sleep(answer.retry)

  async def watch(tally: _Tally) -> None:
    while True:
      tally.resident.append(resident(pid))
      await asyncio.sleep(0.5)

  async def all_clients(seconds: float, warm: bool = False) -> _Tally:
    tally, end = _Tally(), time.monotonic() + seconds
    watching = asyncio.create_task(watch(tally))
    await asyncio.gather(*(one(n, end, tally, warm) for n in range(clients)))
    watching.cancel()
    return tally

  return all_clients


def _left(port: int) -> int:
  """Returns the length of the queue, which the clients have left."""
  page = asyncio.run(client.exchange(port, [client.get('/metrics')])).detail
  (length,) = re.findall(r'^bignas_queue_length (\S+)$', page, re.MULTILINE)
  return int(float(length))


def resident(pid: int) -> int:
  """Returns the resident memory of a process and its children in bytes."""
  total, numbers = 0, [pid]
  for number in numbers:
    with contextlib.suppress(OSError, IndexError):  # it has ended
      place = pathlib.Path(f'/proc/{number}')
      for task in (place / 'task').iterdir():
        numbers += map(int, (task / 'children').read_text().split())
      pages = re.findall(r'VmRSS:\s+(\d+) kB', (place / 'status').read_text())
      total += int(pages[0]) * 1024
  return total


def _memory(samples: Sequence[int]) -> dict[str, float]:
  """Returns the memory in MB: medians of the first and the last tenth."""
  tenth = max(1, len(samples) // 10)
  start = statistics.median(samples[:tenth])
  end = statistics.median(samples[-tenth:])
  megabytes = {'start': start, 'end': end, 'most': max(samples)}
  shown = {name: round(size / 1e6, 1) for name, size in megabytes.items()}
  return shown | {'growth': round(end / start - 1, 4)}


def _percentile(seconds: Sequence[float], percent: int) -> float | None:
  if not seconds:
    return None
  return round(1000 * float(np.percentile(seconds, percent)), 1)
