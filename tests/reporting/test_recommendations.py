"""The recommended children as a table that is printed."""

from bignas_jax.reporting import formats, recommendations
from bignas_jax.reporting.contents import Images
from bignas_jax.reporting.recommendations import (
  Accuracies,
  Float32,
  Int8,
  Recommendation,
)


def test_the_table_has_what_is_known_and_dashes():
  held_out, test = Images(top1=0.9), Images(top1=0.875)
  whole = Recommendation(
    arch={},
    accuracy=Accuracies(
      float32=Float32(held_out=held_out, test=test),
      int8=Int8(test=Images(top1=0.8612)),
    ),
    child='recommended:1',
    device='Abacus 2',
    runtime='onnx',
    limits={'max_latency_ms': 2.5},
    predicted_ms=2.25,
    measured_ms=2.375,
    bytes=54321,
    file='children/a/export/model.onnx',
    int8_file='children/a/export/model.int8.onnx',
  )
  bare = Recommendation(
    arch={},
    accuracy=Accuracies(float32=Float32(held_out=held_out)),
    child='recommended:10',
  )
  head, *lines = recommendations.table([whole, bare]).split('\n')
  begins = [head.index(name) for name in recommendations._HEADINGS]
  ends = [*begins[1:], None]
  first, second = (
    [line[i:j].strip() for i, j in zip(begins, ends, strict=True)]
    for line in lines
  )
  assert first == [
    *('recommended:1', 'Abacus 2 (onnx)', 'at most 2.5 ms', '87.5', '86.1'),
    *('2.25', '2.38', '54.3 k'),
    'children/a/export/model.onnx, children/a/export/model.int8.onnx',
  ]
  nothing = formats.NOTHING
  assert second == [
    *('recommended:10', nothing, 'no limits', *[nothing] * 5, 'not extracted'),
  ]
