"""Time of a training step in PyTorch: the peer of `benchmark device`.

This file runs as a script, with PyTorch alone: it imports nothing of the
package. Its argument is a JSON file of `device_sections`; it writes
one JSON line for each measurement. The network is a plain one: channels last,
automatic mixed precision, leading slices of shared kernels.
"""

import json
import statistics
import sys
import time

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]


class Supernet(nn.Module):
  """MBConv networks that are slices of the biggest child's parameters."""

  def __init__(self, biggest: dict, classes: int):
    super().__init__()
    self.classes = classes
    self.tensors = nn.ParameterDict()
    self.add('stem', biggest['stem'], 3, 3)
    for block in biggest['blocks']:
      name, hidden = block['name'], block['hidden']
      if hidden != block['width_in']:
        self.add(f'{name}_expand', hidden, block['width_in'], 1)
      self.add(f'{name}_depthwise', hidden, 1, block['kernel_size'])
      if block['squeeze']:
        self.dense(f'{name}_reduce', block['squeeze'], hidden)
        self.dense(f'{name}_restore', hidden, block['squeeze'])
      self.add(f'{name}_project', block['width_out'], hidden, 1)
    self.add('head', biggest['head'], biggest['blocks'][-1]['width_out'], 1)
    self.dense('classifier', classes, biggest['head'])

  def add(self, name: str, out: int, width_in: int, size: int) -> None:
    kernel = torch.empty(out, width_in, size, size)
    nn.init.kaiming_normal_(kernel, mode='fan_out')
    layout = torch.channels_last
    self.tensors[name] = nn.Parameter(kernel.contiguous(memory_format=layout))
    self.tensors[f'{name}_scale'] = nn.Parameter(torch.ones(out))
    self.tensors[f'{name}_bias'] = nn.Parameter(torch.zeros(out))

  def dense(self, name: str, out: int, width_in: int) -> None:
    self.tensors[name] = nn.Parameter(0.01 * torch.randn(out, width_in))
    self.tensors[f'{name}_bias'] = nn.Parameter(torch.zeros(out))

  def conv(self, x, name, out, size, stride=1, groups=1, act='none'):
    """Convolves with the centre of a kernel's leading channels."""
    kernel = self.tensors[name]
    cut = (kernel.shape[-1] - size) // 2
    own = kernel[:out, : x.shape[1] // groups]
    if cut:
      own = own[:, :, cut : cut + size, cut : cut + size]
    y = F.conv2d(x, own, None, stride, size // 2, 1, groups)
    scale, bias = (self.tensors[f'{name}_{kind}'] for kind in ('scale', 'bias'))
    y = F.batch_norm(y, None, None, scale[:out], bias[:out], training=True)
    return _ACTIVATIONS[act](y)

  def linear(self, x, name, out):
    kernel, bias = self.tensors[name], self.tensors[f'{name}_bias']
    return F.linear(x, kernel[:out, : x.shape[1]], bias[:out])

  def forward(self, x, child):
    x = self.conv(x, 'stem', child['stem'], 3, 2, act=child['activation'])
    for block in child['blocks']:
      x = self.block(x, block)
    act = child['activation']
    x = self.conv(x, 'head', child['head'], 1, act=act)
    return self.linear(x.mean((2, 3)), 'classifier', self.classes)

  def block(self, x, block):
    name, hidden, act = block['name'], block['hidden'], block['activation']
    h = x
    if hidden != x.shape[1]:
      h = self.conv(h, f'{name}_expand', hidden, 1, act=act)
    size, stride = block['kernel_size'], block['stride']
    h = self.conv(h, f'{name}_depthwise', hidden, size, stride, hidden, act)
    if block['squeeze']:
      means = h.mean((2, 3))
      means = F.silu(self.linear(means, f'{name}_reduce', block['squeeze']))
      gate = torch.sigmoid(self.linear(means, f'{name}_restore', hidden))
      h = h * gate[:, :, None, None].to(h.dtype)
    h = self.conv(h, f'{name}_project', block['width_out'], 1)
    return h + x if h.shape == x.shape else h


_ACTIVATIONS = {
  'none': lambda x: x,
  'swish': F.silu,
  'relu': F.relu,
  'relu6': F.relu6,
  'hard_swish': F.hardswish,
}


def train(net, optimizer, images, labels, children, compiled) -> None:
  """Runs one step: the first child learns the labels, the others its logits."""
  teacher = None
  optimizer.zero_grad(set_to_none=True)
  kind = images.device.type
  mixed = torch.autocast(kind, torch.bfloat16, enabled=kind == 'cuda')
  for child in children:
    with mixed:
      logits = (compiled or net)(images, child)
    goal = labels if teacher is None else teacher
    loss = F.cross_entropy(logits.float(), goal)
    loss.backward()
    if teacher is None:
      teacher = logits.detach().float().softmax(-1)
  optimizer.step()


def measure(case: dict, device: str) -> dict:
  """Times one case; returns its name, seconds of a step and peak bytes."""
  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  net = Supernet(case['children'][0], case['classes']).to(device)
  optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9)
  size = case['resolution']
  images = torch.randn(case['batch'], 3, size, size, device=device)
  images = images.contiguous(memory_format=torch.channels_last)
  labels = torch.randint(case['classes'], (case['batch'],), device=device)
  compiled = torch.compile(net) if case['compile'] else None
  step = lambda: train(  # noqa: E731
    net, optimizer, images, labels, case['children'], compiled
  )
  wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
  began = time.perf_counter()
  for _ in range(3):
    step()
  wait()
  first = time.perf_counter() - began
  seconds = []
  for _ in range(case['rounds']):
    began = time.perf_counter()
    step()
    wait()
    seconds.append(time.perf_counter() - began)
  step_s = statistics.median(seconds)
  peak = torch.cuda.max_memory_allocated() if device == 'cuda' else None
  return {
    'name': case['name'],
    'first_s': first,
    'step_s': step_s,
    'images_per_s': case['batch'] / step_s,
    'peak_bytes': peak,
  }


def main(path: str) -> None:
  with open(path) as file:
    cases = json.load(file)
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  for case in cases:
    row = {'version': torch.__version__}
    if device == 'cuda':
      torch.cuda.reset_peak_memory_stats()
    print(json.dumps(row | measure(case, device)), flush=True)


if __name__ == '__main__':
  main(sys.argv[1])
