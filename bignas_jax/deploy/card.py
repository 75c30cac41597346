"""The files of a package that model hubs read: `README.md` and `config.json`.

`README.md` is a model card: YAML between two lines of dashes, which a hub
reads, then text for people. `config.json` says what those of timm's models say.
Commands need neither; they read `child.json`.
"""

import json
from typing import Any

README, CONFIG = 'README.md', 'config.json'
_LIBRARY = 'bignas_jax'
# Licences by what a hub calls them; others are `other`, with their own name.
_LICENSES = {
  *('apache-2.0', 'mit', 'bsd-3-clause', 'cc-by-4.0', 'cc-by-nc-4.0'),
  *('cc0-1.0', 'gpl-3.0', 'unknown'),
}

# Each value of the front matter is JSON, which is YAML too.
_CARD = """\
---
{front}
---

# {title}

An image classifier of {classes} classes: one network of the search space
`{space}`, made by bignas_jax. {source}

| | |
|---|---|
{rows}

## Use it

```python
import bignas_jax, numpy

child = bignas_jax.load_child('.')  # this directory, or hf://OWNER/NAME
images = numpy.zeros({shape}, 'uint8')
print(child(images).argmax(-1))
```

Images are uint8; `load_child` resizes and normalises them. `child.json` has the
whole description, `model.safetensors` the weights and statistics.
"""


def files(info: dict[str, Any]) -> dict[str, bytes]:
  """Returns the contents of both files by name.

  Args:
    info: content of `child.json`; what it lacks is left out.
  """
  config = json.dumps(_config(info), indent=2) + '\n'
  return {CONFIG: config.encode(), README: _card(info).encode()}


def _config(info: dict[str, Any]) -> dict[str, Any]:
  """Returns the content of `config.json`."""
  given, data = info.get('input') or {}, info.get('data') or {}
  size = given.get('resolution')
  resize = (info.get('network') or {}).get('resize')
  return {
    'library_name': _LIBRARY,
    'architecture': info.get('space'),
    'num_classes': info.get('classes'),
    'label_names': info.get('class_names'),
    'pretrained_cfg': {
      'input_size': [given.get('channels'), size, size],
      'mean': given.get('mean'),
      'std': given.get('std'),
      'crop_pct': data.get('eval_crop'),
      'interpolation': 'bilinear' if resize == 'bilinear' else 'bicubic',
    },
    'arch': info.get('arch'),
  }


def _card(info: dict[str, Any]) -> str:
  """Returns the content of `README.md`."""
  given = info.get('input') or {}
  space, size = info.get('space') or 'unnamed', given.get('image_size') or 1
  lines = [f'{k}: {json.dumps(v)}' for k, v in _front(info, space).items()]
  return _CARD.format(
    front='\n'.join(lines),
    title=f'{space}, {_millions(info.get("macs"))} MACs',
    classes=info.get('classes') or 'some',
    space=space,
    source=_source(info),
    rows='\n'.join(f'| {k} | {text} |' for k, text in _rows(info) if text),
    shape=(1, size, size, given.get('channels') or 1),
  )


def _front(info: dict[str, Any], space: str) -> dict[str, Any]:
  """Returns the front matter's fields."""
  of_origin = (info.get('origin') or {}).get('license')
  front = _license(info.get('license') or of_origin or 'unknown') | {
    'library_name': _LIBRARY,
    'pipeline_tag': 'image-classification',
    'tags': [_LIBRARY, 'jax', 'flax', 'neural-architecture-search', space],
    'metrics': ['accuracy'],
  }
  accuracy, data = info.get('accuracy') or {}, info.get('data') or {}
  if accuracy.get('top1') is None or not data.get('name'):
    return front
  name, split = data['name'], accuracy.get('split') or 'test'
  values = {'accuracy': 'top1', 'top_5_accuracy': 'top5'}
  result = {
    'task': {'type': 'image-classification'},
    'dataset': {'name': name, 'type': name, 'split': split},
    'metrics': [
      {'type': kind, 'value': accuracy[key]}
      for kind, key in values.items()
      if accuracy.get(key) is not None
    ],
  }
  return front | {'model-index': [{'name': space, 'results': [result]}]}


def _license(name: str) -> dict[str, str]:
  identifier = '-'.join(name.lower().split())
  if identifier in _LICENSES:
    return {'license': identifier}
  return {'license': 'other', 'license_name': name}


def _source(info: dict[str, Any]) -> str:
  source, origin = info.get('source') or {}, info.get('origin') or {}
  if source.get('step'):
    text = f'Its weights are those of training step {source["step"]}.'
  else:
    text = 'It was converted from published weights.' if origin else ''
  if origin.get('file'):
    text += f' The weights are from the file `{origin["file"]}`.'
  return text


def _rows(info: dict[str, Any]) -> list[tuple[str, str]]:
  """Returns names and values of the card's table; '': not known."""
  accuracy, given = info.get('accuracy') or {}, info.get('input') or {}
  data, calibration = info.get('data') or {}, info.get('calibration') or {}
  tested, images = '', accuracy.get('images')
  if accuracy.get('top1') is not None:
    tested = f'{accuracy["top1"]:.2%} top-1'
    if accuracy.get('top5') is not None:
      tested += f', {accuracy["top5"]:.2%} top-5'
    tested += f' on {images} {accuracy.get("split") or "test"} images'
  pixels, used = given.get('resolution'), calibration.get('images')
  channels = given.get('channels')
  return [
    ('data', str(data.get('name') or '')),
    ('accuracy', tested.replace('held_out', 'held-out')),
    ('multiply-adds', _millions(info.get('macs')) if 'macs' in info else ''),
    ('parameters', _millions(info.get('params')) if 'params' in info else ''),
    ('input', f'{pixels} x {pixels} x {channels}' if pixels else ''),
    ('batch norm', f'statistics of {used} training images' if used else ''),
    ('architecture', f'`{json.dumps(info["arch"])}`' if 'arch' in info else ''),
  ]


def _millions(number: float | None) -> str:
  return '?' if number is None else f'{number / 1e6:.3g} million'
