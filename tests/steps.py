"""Steps that several tests run: small spaces, batches, compiled programs."""

import dataclasses
import functools

import jax
import numpy as np
import tiny

from bignas_jax.methods import programs
from bignas_jax.methods import step as step_lib
from bignas_jax.runs import config as config_lib
from bignas_jax.system import mesh as mesh_lib

# One block without an expanding convolution: traced in no time.
BASE = dataclasses.replace(
  tiny.QUICK,
  stages=(dataclasses.replace(tiny.QUICK.stages[0], expand_ratio=(1,)),),
)

# All that rules can say: whole or split, of parameters or of the optimiser.
SHARDED = mesh_lib.Layout(
  axes=('replica', 'shard'),
  sizes=(2, -1),
  rules=(('bias', ''), ('kernel|opt_state', 'shard')),
)
LAYOUTS = {'row': mesh_lib.Layout(), 'sharded': SHARDED}


# With all that a rule can say of the biggest child.
RULE = dataclasses.replace(tiny.config().rule, drop_connect=0.8)


def space_of(resolutions):
  return dataclasses.replace(
    BASE, resolution=resolutions, train_resolution=resolutions
  )


def make_batch(step: int, size: int = 16, pixels: int = 12):
  rng = np.random.default_rng(step)
  return {
    'image': rng.integers(0, 256, (size, pixels, pixels, 1), np.uint8),
    'label': rng.integers(0, 10, size).astype(np.int32),
  }


@functools.cache
def compiled(
  devices: int, group: int = 0, layout: str = 'row', space=tiny.LOOP
):
  config = tiny.config(
    space=space, bn_group_size=group, layout=LAYOUTS[layout], rule=RULE
  )
  mesh = mesh_lib.create(jax.devices()[:devices], config.layout)
  setup = config_lib.setup(config, mesh)
  return config, setup, programs.compile_all(programs.all_programs(setup))


def perturbed(setup) -> step_lib.State:
  """A state in which no branch is silenced by a zero scale."""
  state = jax.jit(step_lib.init_state(setup))()
  leaves, tree = jax.tree.flatten(state.params)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  noisy = [
    p + 0.2 * jax.random.normal(k, p.shape)
    for p, k in zip(leaves, keys, strict=True)
  ]
  return state._replace(params=jax.tree.unflatten(tree, noisy))


def ran(setup, children):
  """A real step: the parameters before, the gradient, and what is measured."""
  compiled = programs.compile_all(programs.all_programs(setup))
  update, gradients = compiled['update'], []

  def noting(state, found, *flags):
    gradients.append(jax.device_get(found))
    return update(state, found, *flags)

  compiled['update'] = noting
  state = perturbed(setup)
  params = jax.device_get(state.params)
  mesh, batch = setup.model.mesh, make_batch(0)
  batch['image'] = batch['image'][:, : setup.model.image_size]
  batch['image'] = batch['image'][:, :, : setup.model.image_size]
  there = mesh_lib.put(mesh, batch, mesh_lib.split(mesh))
  _, measured = programs.step(setup, compiled, state, there, children)
  return params, batch, gradients[0], jax.device_get(measured)
