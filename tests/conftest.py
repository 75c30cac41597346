"""What every test sees: four CPU devices and the same random examples.

pytest reads this file before any test module, so the variables are set before
JAX starts a backend, and child processes inherit them.
"""

import os

import hypothesis

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = ' '.join(
  [os.environ.get('XLA_FLAGS', ''), '--xla_force_host_platform_device_count=4']
).strip()

# Compiling inside an example takes seconds, and a failure must repeat.
hypothesis.settings.register_profile(
  'repeatable', deadline=None, derandomize=True
)
hypothesis.settings.load_profile('repeatable')
