"""Time of a training step in PyTorch: the peer of `benchmark device`.

This file runs as a script, with PyTorch alone: it imports nothing of the
package. Its argument is a JSON file of cases, which `torch_cases` describes; it
writes one JSON line for each measurement. The networks are the package's own,
written plainly: channels last, automatic mixed precision, leading slices of
shared kernels, the same losses and the same update. Only padding may differ:
it is as wide on both sides of an image, so that PyTorch needs no extra pass.
"""

import json
import statistics
import sys
import time

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

_ACTIVATIONS = {
  None: lambda x: x,
  'swish': F.silu,
  'relu': F.relu,
  'relu6': F.relu6,
  'hard_swish': F.hardswish,
  'sigmoid': torch.sigmoid,
  'hard_sigmoid': F.hardsigmoid,
}


class Network(nn.Module):
  """A network whose children are slices of its parameters."""

  def __init__(self, case: dict):
    super().__init__()
    self.epsilon = case['epsilon']
    self.tensors = nn.ParameterDict(
      {name: _initial(name, shape) for name, shape in case['shapes'].items()}
    )

  def forward(self, x, child, dropout):
    """Returns the logits of a child in float32.

    Args:
      x: normalised images [batch, channels, size, size].
      child: the child's layers.
      dropout: dropout rate before the classifier.
    """
    x = self.conv(x, child['stem'])
    for block in child['blocks']:
      x = self.block(x, block)
    if child['head'] is not None:
      x = self.conv(x, child['head'])
    x = x.mean((2, 3))
    if child['last_conv'] is not None:
      x = self.dense(x, child['last_conv'])
    if dropout > 0:
      x = F.dropout(x, dropout)
    with torch.autocast(x.device.type, enabled=False):
      return self.dense(x.float(), child['classifier'])

  def block(self, x, block):
    *convs, last = block['convs']
    h = x
    for conv in convs:
      h = self.conv(h, conv)
    if block['squeeze']:
      gate = h.mean((2, 3))
      for layer in block['squeeze']:
        gate = self.dense(gate, layer)
      h = h * gate[:, :, None, None].to(h.dtype)
    h = self.conv(h, last)
    shortcut = block['shortcut']
    if shortcut is None:
      return h
    if shortcut['pooled']:  # the last window of an odd side has fewer pixels
      x = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
    if shortcut['conv'] is not None:
      x = self.conv(x, shortcut['conv'])
    return h + x

  def conv(self, x, conv):
    """Convolves with the centre of a kernel's leading channels."""
    name, (out, width_in, size, _) = conv['name'], conv['kernel']
    kernel = self.tensors[f'{name}_kernel']
    cut = (kernel.shape[-1] - size) // 2
    own = kernel[:out, :width_in]
    if cut:
      own = own[:, :, cut : cut + size, cut : cut + size]
    y = F.conv2d(x, own, None, conv['stride'], size // 2, 1, conv['groups'])
    if conv['others']:
      scale, bias = (self.tensors[f'{name}_{o}'][:out] for o in conv['others'])
      given = {'training': True, 'eps': self.epsilon}
      y = F.batch_norm(y, None, None, scale, bias, **given)
    return _ACTIVATIONS[conv['activation']](y)

  def dense(self, x, layer):
    name, (out, width_in) = layer['name'], layer['kernel']
    kernel = self.tensors[f'{name}_kernel'][:out, :width_in]
    bias = None
    if layer['others']:
      bias = self.tensors[f'{name}_bias'][:out]
    return _ACTIVATIONS[layer['activation']](F.linear(x, kernel, bias))


def _initial(name: str, shape: list[int]):
  """Returns a parameter: zeros, ones, or random numbers of a kernel."""
  if name.endswith('_bias'):
    return nn.Parameter(torch.zeros(shape))
  if name.endswith('_scale'):
    return nn.Parameter(torch.ones(shape))
  kernel = 0.01 * torch.randn(shape)
  if len(shape) == 4:
    nn.init.kaiming_normal_(kernel, mode='fan_out')
    kernel = kernel.contiguous(memory_format=torch.channels_last)
  return nn.Parameter(kernel)


class RMSProp:
  """RMSProp in TensorFlow's form, as `optim` has it, for all parameters.

  The mean square starts at 1, epsilon is inside the root, and the rate is
  inside the momentum; `torch.optim.RMSprop` does none of these.
  """

  def __init__(self, params, rate: float, config: dict):
    self.params, self.rate, self.config = [*params], rate, config
    self.squares = [torch.ones_like(param) for param in self.params]
    self.moved = [torch.zeros_like(param) for param in self.params]

  @torch.no_grad()
  def step(self) -> None:
    """Changes all parameters by their gradients."""
    gradients = [param.grad for param in self.params]
    decay, momentum = self.config['decay'], self.config['momentum']
    torch._foreach_mul_(self.squares, decay)
    torch._foreach_addcmul_(self.squares, gradients, gradients, 1 - decay)
    roots = torch._foreach_add(self.squares, self.config['epsilon'])
    torch._foreach_sqrt_(roots)
    torch._foreach_mul_(self.moved, momentum)
    torch._foreach_addcdiv_(self.moved, gradients, roots, self.rate)
    torch._foreach_sub_(self.params, self.moved)


class Step:
  """A training step with its network and its optimizer's state."""

  def __init__(self, case: dict, device: str):
    self.case, self.device = case, device
    self.net = Network(case).to(device)
    self.run = self.net
    if case['compiled']:
      # Each child is a graph of its own, and PyTorch keeps a few of them.
      torch.compiler.reset()
      self.run = torch.compile(self.net, dynamic=False)
    assert case['optimizer']['name'] == 'rmsprop', case['optimizer']
    self.optimizer = RMSProp(
      self.net.parameters(), case['rate'], case['optimizer']
    )
    self.decayed = [self.net.tensors[name] for name in case['decayed']]
    of_channels = case['mean'], case['std']
    self.mean, self.std = (
      torch.tensor(values, device=device)[:, None, None]
      for values in of_channels
    )

  def __call__(self, pixels, labels) -> None:
    """Runs one step: the first child learns the labels, the others its logits.

    Args:
      pixels: uint8 images [batch, channels, size, size].
      labels: the images' classes [batch].
    """
    case, teacher = self.case, None
    images = (pixels.float() / 255 - self.mean) / self.std
    for param in self.optimizer.params:
      param.grad = None
    mixed = torch.autocast(self.device, torch.bfloat16, enabled=case['mixed'])
    for child in case['children']:
      first = teacher is None
      with mixed:
        logits = self.run(images, child, case['dropout'] if first else 0.0)
      if first:
        smoothing = case['label_smoothing']
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        teacher = logits.detach().softmax(-1)
      else:
        loss = F.cross_entropy(logits, teacher)
      loss.backward()
    with torch.no_grad():
      gradients = [param.grad for param in self.decayed]
      decay = case['weight_decay']
      torch._foreach_add_(gradients, self.decayed, alpha=decay)
    self.optimizer.step()


def measure(case: dict, device: str) -> dict:
  """Times one case; returns seconds of a step, images a second, peak bytes."""
  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  step = Step(case, device)
  size, batch = case['resolution'], case['batch']
  shape, kind = (batch, case['channels'], size, size), torch.uint8
  pixels = torch.randint(256, shape, dtype=kind, device=device)
  pixels = pixels.contiguous(memory_format=torch.channels_last)
  labels = torch.randint(case['classes'], (batch,), device=device)
  wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
  began = time.perf_counter()
  for _ in range(3):
    step(pixels, labels)
  wait()
  first = time.perf_counter() - began
  seconds = []
  for _ in range(case['rounds']):
    began = time.perf_counter()
    step(pixels, labels)
    wait()
    seconds.append(time.perf_counter() - began)
  step_s = statistics.median(seconds)
  peak = torch.cuda.max_memory_allocated() if device == 'cuda' else None
  return {
    'first_s': first,
    'step_s': step_s,
    'images_per_s': batch / step_s,
    'peak_bytes': peak,
  }


def main(path: str) -> None:
  with open(path) as file:
    cases = json.load(file)
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  for case in cases:
    row = {name: case[name] for name in ('name', 'batch', 'compiled')}
    row['version'] = torch.__version__
    if device == 'cuda':
      torch.cuda.empty_cache()
      torch.cuda.reset_peak_memory_stats()
    try:
      row |= measure(case, device)
    except RuntimeError as error:  # no compiler, or no memory: the next may run
      row['problem'] = f'{type(error).__name__}: {error}'[:300]
    print(json.dumps(row), flush=True)


if __name__ == '__main__':
  main(sys.argv[1])
