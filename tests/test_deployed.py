"""A child of every system: extracted, evaluated, exported and served."""

import chain
import pytest
import test_systems


@pytest.mark.slow
@pytest.mark.parametrize('name', test_systems.SYSTEMS)
def test_a_child_of_every_system_is_served(name, tmp_path):
  figures = chain.run(name, tmp_path, steps=4, images=100)
  assert figures['parity'] <= 1e-4
  for format_name in ('stablehlo', 'onnx'):
    assert figures[format_name]['max_diff_over_scale'] <= 1e-4
  assert figures['served']['max_log_diff'] <= 1e-3
