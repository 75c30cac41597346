"""Memory and peak rates of TPU devices, from Google's published system pages.

Source: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm. That page
gives numbers of a chip; here they are of a device as JAX counts them. A chip of
v2, v3 and tpu7x is two devices.
"""

from typing import NamedTuple

from bignas_jax.values import errors


class Chip(NamedTuple):
  """One device of a TPU pod.

  Attributes:
    hbm_bytes: memory of the device, bytes.
    flops: peak bfloat16 operations a second; a multiply-add counts as two.
    bandwidth: memory bandwidth, bytes a second.
  """

  hbm_bytes: int
  flops: float
  bandwidth: float


_GIB = 2**30
CHIPS = {
  'v2': Chip(8 * _GIB, 22.5e12, 350e9),
  'v3': Chip(16 * _GIB, 61.5e12, 450e9),
  'v4': Chip(32 * _GIB, 275e12, 1228e9),
  'v5e': Chip(16 * _GIB, 197e12, 819e9),
  'v5p': Chip(95 * _GIB, 459e12, 2765e9),
  'v6e': Chip(32 * _GIB, 918e12, 1640e9),
  'tpu7x': Chip(96 * _GIB, 1153.5e12, 3690e9),
}


def roofline(flops: float, moved: float, chip: Chip) -> float:
  """Returns the least seconds of a program: those of its arithmetic or memory.

  Args:
    flops: its number of operations.
    moved: bytes that it moves to and from memory.
    chip: device that it runs on.
  """
  return max(flops / chip.flops, moved / chip.bandwidth)


def of(topology: str) -> Chip:
  """Returns the device of a topology such as `v3:8x8`.

  Raises:
    UserError: the topology is not of the form CHIP:AxB, or its chip is unknown.
  """
  name, given, _ = topology.partition(':')
  if not given or name not in CHIPS:
    raise errors.UserError(
      '--topology', topology, f'CHIP:AxB with CHIP {errors.one_of(CHIPS, name)}'
    )
  return CHIPS[name]
