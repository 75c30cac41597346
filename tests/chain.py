"""From a trained run to an answer over HTTP, by the commands that a user runs.

  python tests/chain.py once_for_all --out=DIR                 trains it first
  python tests/chain.py once_for_all --out=DIR --workdir=RUN   a run of `:small`

It trains `configs/NAME.py:small` for a few steps, selects a child, extracts it,
evaluates it, exports it, serves it, and compares each answer with what the
package says. The last line of stdout has the figures, as JSON.
"""

import argparse
import json
import pathlib
import statistics
import time

import cv2
import numpy as np
import services

import bignas_jax
from bignas_jax import evaluate, export, extract, main, search
from bignas_jax.costs import counting
from bignas_jax.data import sources, transforms
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.system import storage

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 20
EVALUATIONS = 3  # of a search
# The search of a system's recipe; of others, random children are compared.
SEARCHES = {
  'auto_slim': 'greedy',
  'once_for_all': 'predictor',
  'attentive_nas': 'pareto_bins',
  'alpha_net': 'pareto_bins',
  'bn_nas': 'batch_norm_scales',
}
_REQUESTS = 50
_READY_S = 600  # a service exports the child first


def run(name, out, workdir=None, steps=STEPS, images=1000):
  """Does the whole chain for one system, and returns its figures.

  Args:
    name: name of a file in `configs/` that has `:small`.
    out: directory to write to.
    workdir: a trained run of it; None: one is trained in `out`.
    steps: number of steps to train.
    images: number of test images that artifacts are compared on.
  """
  out = pathlib.Path(out)
  if workdir is None:
    workdir = train(name, out / 'run', steps)
  child, how = out / 'child', 'learnt'
  arch = file = pathlib.Path(workdir) / 'most_probable.json'
  if not file.is_file():  # the run has learnt none
    how, arch, file = searched(name, workdir)
  info = extract.main(
    [f'--workdir={workdir}', f'--arch={arch}', f'--out={child}']
  )
  selected = json.loads(file.read_text())
  assert info['arch'] == selected.get('arch', selected)
  accuracy = evaluate.main([f'--child={child}', '--split=test'])
  made = export.main(
    [f'--child={child}', '--format=stablehlo,onnx', f'--images={images}']
  )
  assert accuracy['top1'] == info['accuracy']['top1']
  figures = {
    key: {
      'max_abs_diff': entry['max_abs_diff'],
      'max_diff_over_scale': entry['max_diff_over_scale'],
      'bytes': entry['bytes'],
      'ms_per_image': entry['ms_per_image'],
    }
    for key, entry in made['formats'].items()
  }
  return {
    'system': name,
    'selected': how,
    'arch': info['arch'],
    'macs': info['macs'],
    'params': info['params'],
    'top1': accuracy['top1'],
    'parity': info['parity']['max_diff_over_scale'],
    **figures,
    'served': served(child, out / 'log'),
  }


def train(name, workdir, steps):
  """Trains a system's `:small`, and returns its work directory."""
  main.main(
    [
      f'--config={ROOT}/configs/{name}.py:small',
      f'--config.steps={steps}',
      f'--config.eval_every={steps}',
      f'--workdir={workdir}',
    ]
  )
  return workdir


def searched(name, workdir):
  """Returns the strategy of a search, what `--arch` takes, and their file.

  The child has at most the mean of the smallest and the biggest one's MACs.
  """
  config = directory.load_config(storage.path(str(workdir), 'workdir'))
  space = config_lib.space(config)
  ends = arch_lib.smallest(space), arch_lib.biggest(space)
  limit = statistics.mean(counting.cost(space, arch).macs for arch in ends)
  strategy = SEARCHES.get(name, 'random')
  best = search.main(
    [
      *(f'--workdir={workdir}', f'--strategy={strategy}'),
      *(f'--max_macs={limit}', f'--evaluations={EVALUATIONS}'),
    ]
  )
  assert best['costs']['macs'] <= limit
  return strategy, 'best', pathlib.Path(workdir) / 'search' / 'best.json'


def served(child, log):
  """Serves a child, and returns how its answer differs from the package's."""
  network = bignas_jax.load_child(child)
  digit, label = a_digit(network.info)
  encoded = cv2.imencode('.png', digit)[1].tobytes()
  service = services.Service(child, log)
  try:
    service.wait(_READY_S)
    status, answer = service.predict(encoded)
    seconds = []
    for _ in range(_REQUESTS):
      start = time.perf_counter()
      assert service.predict(encoded)[0] == 200
      seconds.append(time.perf_counter() - start)
  finally:
    stopped, _ = service.stop()
  assert (status, stopped) == (200, 0), answer
  size, crop = network.info['input']['image_size'], network.info['data']
  pixels = transforms.centre(digit, size, crop=crop['eval_crop'])
  logits = np.asarray(network(pixels[None])[0], np.float64)
  logs = logits - np.log(np.exp(logits).sum())
  classes = [one['class'] for one in answer['classes']]
  assert classes == [int(i) for i in np.argsort(-logits)[:5]]
  told = np.log([one['probability'] for one in answer['classes']])
  return {
    'digit': int(label),
    'answer': answer['classes'][0]['name'],
    'max_log_diff': float(abs(told - logs[classes]).max()),
    'ms_per_request': 1000 * statistics.median(seconds),
  }


def a_digit(info):
  """Returns a test image that training has not seen, and its label."""
  data = sources.Data(**info['data'])
  return sources.load(data, info['input']['channels']).test[0]


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('name', help='a file in configs/ that has `:small`')
  parser.add_argument('--out', required=True, help='a new directory')
  parser.add_argument('--workdir', help='a run of it; else it is trained')
  parser.add_argument('--steps', type=int, default=STEPS, help='of training')
  given = parser.parse_args()
  print(json.dumps(run(given.name, given.out, given.workdir, given.steps)))
