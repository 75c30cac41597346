"""The update rule of PARSEC (2019), and what FP-NAS (CVPR 2021) adds to it.

Several architectures are drawn from a distribution, and each is weighted by how
likely it makes the labels. All gradients here are with respect to logits of
`distributions`.
"""

import math

import numpy as np
from jaxtyping import Float, Int

from bignas_jax.policies import distributions
from bignas_jax.values import errors


def weights(
  log_likelihood: Float[np.ndarray, 'samples'], temperature: float = 1.0
) -> Float[np.ndarray, 'samples']:
  """Returns the importance weight of each sample; their sum is 1.

  Args:
    log_likelihood: of each sample, the logarithm of the probability of all
      labels of a batch.
    temperature: what log-likelihoods are divided by. They are sums over the
      batch, so with 1 and a usual batch nearly all weight is on one sample.

  Raises:
    UserError: there is one sample. Its weight is 1 whatever its likelihood is,
      so that nothing can be learnt from it.
  """
  if len(log_likelihood) < 2:
    raise errors.UserError('samples', len(log_likelihood), 'at least 2')
  scaled = log_likelihood / temperature
  result = np.exp(scaled - scaled.max())
  return result / result.sum()


def gradient(
  logits: Float[np.ndarray, 'groups choices'],
  picks: Int[np.ndarray, 'samples groups'],
  log_likelihood: Float[np.ndarray, 'samples'],
  temperature: float = 1.0,
) -> Float[np.ndarray, 'groups choices']:
  """Returns an estimate of the gradient of the log marginal likelihood.

  The marginal likelihood is the mean of the likelihood over the distribution.
  The estimate's error goes to 0 with the number of samples.

  Args:
    logits: logits of the distribution.
    picks: samples from it.
    log_likelihood: of each sample, as in `weights`.
    temperature: as in `weights`.
  """
  weight = weights(log_likelihood, temperature)
  return distributions.weighted_gradient(logits, picks, weight)


def samples(
  logits: Float[np.ndarray, 'groups choices'], rate: float = 0.25
) -> int:
  """Returns FP-NAS's number of samples: `rate` times the entropy, rounded up.

  It is 2 at least, because nothing can be learnt from one sample.
  """
  return max(2, math.ceil(rate * distributions.entropy(logits)))


def cost_gradient(
  logits: Float[np.ndarray, 'groups choices'],
  picks: Int[np.ndarray, 'samples groups'],
  macs: Float[np.ndarray, 'samples'],
  target: float,
) -> Float[np.ndarray, 'groups choices']:
  """Returns an estimate of the gradient of FP-NAS's log cost.

  The cost of an architecture is the share by which its MACs exceed the target,
  and 0 under the target. The log cost is the logarithm of the mean cost over
  the distribution. Where no sample exceeds the target, the gradient is 0.

  Args:
    logits: logits of the distribution.
    picks: samples from it.
    macs: MACs of each sample.
    target: MACs that cost nothing.
  """
  cost = np.maximum(0, macs / target - 1)
  if not cost.any():
    return np.zeros_like(logits)
  return distributions.weighted_gradient(logits, picks, cost / cost.sum())
