"""What one machine can do: `benchmark device`.

Each section runs in a process of its own, which is stopped when the time is
over; what it has measured until then is kept.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from bignas_jax.estimates import chips
from bignas_jax.perf import device_sections
from bignas_jax.perf.device_sections import SECTIONS, Row
from bignas_jax.system import console
from bignas_jax.values import errors


def check(names: Sequence[str]) -> Sequence[str]:
  """Returns names of sections; raises UserError if one is unknown."""
  for name in names:
    if name not in SECTIONS:
      raise errors.UserError('--sections', name, errors.one_of(SECTIONS, name))
  return names


def measure_here(names: Sequence[str], out: pathlib.Path) -> Row:
  """Measures sections in this process, and appends each row to a file.

  Args:
    names: names of the sections.
    out: file that gets a JSON line for each row; it is empty or not there.
  """
  _check_new(out, ours=False)
  result: dict[str, list[Row]] = {}
  with out.open('a') as file:
    for name in names:
      rows = result.setdefault(name, [])
      for row in device_sections.run(name):
        rows.append(row)
        print(json.dumps(row), file=file, flush=True)
        console.say(f'{name}: {json.dumps(row)[:300]}')
  return result


def measure(names: Sequence[str], minutes: float, out: pathlib.Path) -> Row:
  """Measures sections one after the other, each in a process of its own.

  Args:
    names: names of the sections. `torch` is left out if PyTorch is missing.
    minutes: the longest time for all of them; what did not end then is missing.
    out: JSON file that is written after each section; an earlier one of this
      command is replaced.

  Returns:
    For each section, its rows; under `unfinished` the sections that failed,
    were stopped or not begun; and under `markdown` a row of a table.
  """
  _check_new(out, ours=True)
  ends = time.monotonic() + 60 * minutes
  result: Row = {'unfinished': []}
  left = list(names)
  while left:
    name = left.pop(0)
    if name == 'torch' and importlib.util.find_spec('torch') is None:
      console.say('torch: left out, because PyTorch is not installed')
      continue
    result[name], ended = _run(name, ends - time.monotonic())
    if not ended:
      result['unfinished'].append(name)
    _add_floors(result)
    out.write_text(json.dumps(result, indent=1))
    if name == 'machine' and result[name]:
      left = ordered(left, result[name][0]['platform'])
  result['markdown'] = markdown(result)
  out.write_text(json.dumps(result, indent=1))
  return result


def ordered(names: Sequence[str], platform: str) -> list[str]:
  """Returns the sections in the order in which they are measured.

  On CPUs those that take minutes come last, so that the others are not missing.
  """
  late = device_sections.LATE_ON_CPUS if platform == 'cpu' else ()
  return sorted(names, key=lambda name: name in late)


def _check_new(out: pathlib.Path, ours: bool) -> None:
  """Raises UserError if a file has something that may not be replaced.

  Args:
    out: the file.
    ours: whether it may have an earlier result of `measure`.
  """
  text = out.read_text(errors='replace') if out.is_file() else ''
  # `measure` writes this name first.
  right = not text or (ours and text.startswith('{\n "unfinished"'))
  if not right or out.is_dir() or not out.parent.is_dir():
    allowed = 'a new file, in a directory that is there'
    raise errors.UserError('--out', str(out), allowed)


def _add_floors(result: Row) -> None:
  """Adds the floors of steps to rows that have the compiler's counts.

  `floor_s` of a program is the time in which the machine computes its FLOPs or
  moves its bytes, whichever is longer, at the rates of the section `machine`;
  that of a step is their sum, and `floor_share` its share of the step's time.
  """
  for machine in result.get('machine', [])[:1]:
    chip = chips.Chip(0, machine['flops'], machine['bandwidth'])
    for name, rows in result.items():
      for row in rows if name in _STEP_S else ():
        programs = row.get('compiler', {}).values()
        for one in programs:
          one['floor_s'] = chips.roofline(one['flops'], one['bytes'], chip)
        if floor := sum(one['floor_s'] for one in programs):
          row['floor_s'] = floor
          row['floor_share'] = floor / row[_STEP_S[name]]


# Seconds of a step in the rows of a section.
_STEP_S = {'b0': 'step_s', 'bignas': 'elastic_s', 'attentive_nas': 'elastic_s'}


def markdown(result: Row) -> str:
  """Returns the most important figures as a table of one row."""
  cells = {
    name: cell(result, *arguments) or 'not measured'
    for name, (cell, *arguments) in _COLUMNS.items()
  }
  lines = [*cells], ['---'] * len(cells), [*cells.values()]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _first(
  result: Row, section: str, key: str, factor: float = 1, unit: str = ''
) -> str:
  """Returns a value of a section's first row; empty: there is none."""
  rows = result.get(section)
  if not rows:
    return ''
  value = rows[0][key]
  if isinstance(value, str):
    return value
  return f'{factor * value:,.4g} {unit}'.strip()


def _in_torch(result: Row, section: str, name: str, key: str) -> str:
  """Returns PyTorch's rate and time of a step, and the ratio of ours to it.

  Of a step that was measured compiled and not compiled, the faster one.

  Args:
    result: rows by section.
    section: section whose first row is our step.
    name: name of the step in the section `torch`.
    key: key of our step's seconds.
  """
  for ours in result.get(section, [])[:1]:
    same = name, ours['batch']
    theirs = [
      row
      for row in result.get('torch', [])
      if (row['name'], row['batch']) == same and 'problem' not in row
    ]
    for row in sorted(theirs, key=lambda row: row['step_s'])[:1]:
      rate, step_s = row['images_per_s'], row['step_s']
      ratio = ours[key] / step_s
      return f'{rate:,.4g} images/s, {1e3 * step_s:,.4g} ms, ratio {ratio:.3g}'
  return ''


def _floor(result: Row, section: str) -> str:
  """Returns the floor of a section's first step, and its share of the time."""
  for row in result.get(section, [])[:1]:
    if 'floor_s' in row:
      return f'{1e3 * row["floor_s"]:,.4g} ms, {row["floor_share"]:.0%}'
  return ''


# Heading -> function of the result, and its other arguments.
_COLUMNS = {
  'device': (_first, 'machine', 'device'),
  'memory': (_first, 'machine', 'bandwidth', 1e-9, 'GB/s'),
  'matrices': (_first, 'machine', 'flops', 1e-12, 'Tflop/s'),
  'EfficientNet-B0': (_first, 'b0', 'images_per_s', 1, 'images/s'),
  'B0 in PyTorch': (_in_torch, 'b0', device_sections.B0_SPACE.name, 'step_s'),
  "B0's floor": (_floor, 'b0'),
  'step of `bignas`': (_first, 'bignas', 'elastic_s', 1e3, 'ms'),
  'to static': (_first, 'bignas', 'ratio'),
  'in PyTorch': (_in_torch, 'bignas', 'bignas', 'elastic_s'),
  'its floor': (_floor, 'bignas'),
  'step of `attentive_nas`': (_first, 'attentive_nas', 'elastic_s', 1e3, 'ms'),
  'to static ': (_first, 'attentive_nas', 'ratio'),
  'in PyTorch ': (_in_torch, 'attentive_nas', 'attentive_nas', 'elastic_s'),
  'its floor ': (_floor, 'attentive_nas'),
  'children': (_first, 'children', 'children_per_minute', 1, 'a minute'),
}


def _run(name: str, seconds: float) -> tuple[list[Row], bool]:
  """Runs a section in a process; returns its rows and whether it ended."""
  if seconds <= 0:
    return [], False
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory) / 'rows.jsonl'
    path.touch()
    command = [sys.executable, '-m', 'bignas_jax.benchmark', 'device']
    asked = [f'--sections={name}', '--here', f'--out={path}']
    began = time.monotonic()
    environment = dict(os.environ)
    if name == 'torch':  # or else JAX takes most of the memory before PyTorch
      environment['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
    status = _status(command + asked, seconds, environment)
    console.say(f'{name}: {time.monotonic() - began:.0f} s, status {status}')
    lines = path.read_text().splitlines(keepends=True)
    # The last line of a process that was stopped may be half of one.
    rows = [json.loads(line) for line in lines if line.endswith('\n')]
    return rows, status == 0


def _status(
  command: Sequence[str],
  seconds: float,
  environment: Mapping[str, str] | None = None,
) -> int | None:
  """Runs a command; returns its status, or None if its time was over.

  Processes that it has started end with it, such as PyTorch's, so that they do
  not run beside the next section.
  """
  with subprocess.Popen(
    command,
    stdout=subprocess.DEVNULL,
    start_new_session=True,
    env=environment,
  ) as process:
    try:
      return process.wait(seconds)
    except subprocess.TimeoutExpired:
      return None
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
