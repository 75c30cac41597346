"""How a run was trained, as a section of the report."""

import statistics

from bignas_jax.methods import loss_graph
from bignas_jax.reporting import html, plots
from bignas_jax.reporting.run_files import Run
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config


def section(run: Run) -> str:
  """Losses, accuracies, learning rate and speed over steps."""
  losses = run.curves('train/loss_{}')
  if not losses and not run.curves('eval/{}/top1'):
    return html.section(
      'Training',
      html.missing(
        'No step has been logged yet. To train, run',
        run.command('main', '--config=FILE'),
      ),
    )
  body = html.p(_step(run))
  body += html.curves(
    'losses',
    losses,
    'training loss',
    'Loss on the training batch. ' + _teachers(run.config),
    plots.WIDE,
  )
  return html.section('Training', body + _accuracies(run) + _rates(run))


def _step(run: Run) -> str:
  if run.is_one:
    return 'A step trains the network, which is called biggest here.'
  if run.config.policy == 'alone':
    return 'A step trains the biggest child alone.'
  return (
    'A step trains the biggest child, the smallest and '
    f'{run.config.random_children} random ones on the same images (the '
    'sandwich rule), with one update of the weights that they share.'
  )


def _accuracies(run: Run) -> str:
  test = run.curves('eval/{}/top1', 100)
  return html.pair(
    html.curves(
      'train-top1',
      run.curves('train/top1_{}', 100),
      'training top-1, %',
      'Top-1 on the augmented training batch.',
    ),
    html.curves(
      'eval-top1',
      test,
      'test top-1, %',
      'Top-1 on the test images, after calibration. '
      + ' '.join(
        f'Last, {role}: {line[-1][1]:.1f} %.' for role, line in test.items()
      ),
    ),
  )


def _rates(run: Run) -> str:
  return html.pair(
    html.curves(
      'lr',
      {'learning rate': run.curve('lr')},
      'learning rate',
      'Learning rate.',
    ),
    html.curves(
      'speed',
      {'images/s': run.curve('images_per_s')},
      'images a second',
      _speed(run),
    ),
  )


def _teachers(config: Config) -> str:
  teachers: dict[str, list[str]] = {}
  for edge in loss_graph.among(config.rule, config_lib.roles(config)).edges:
    source = 'label' if edge.teacher == 'label' else f'{edge.teacher} child'
    teachers.setdefault(source, []).append(edge.student)
  told = [
    f'from the {source}: {", ".join(dict.fromkeys(students))}'
    for source, students in teachers.items()
  ]
  floors = 'Losses against different targets have different floors.'
  return f'Who learns {"; ".join(told)}. {floors if len(told) > 1 else ""}'


def _speed(run: Run) -> str:
  speeds = [speed for _, speed in run.curve('images_per_s') if speed > 0]
  if not speeds:
    return 'Images a second were not recorded.'
  median = statistics.median(speeds)
  seconds = run.config.batch_size * run.step / median
  return (
    f'Images a second; median {median:.4g}, with which {run.step:,} steps '
    f'take {html.duration(seconds)}. Compiling and evaluating come on top.'
  )
