"""The policy of PARSEC (2019), and what FP-NAS (CVPR 2021) adds to it.

Several architectures are drawn from a distribution, and each is weighted by how
likely it makes the labels. All gradients here are with respect to logits of
`distributions`.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int

from bignas_jax.costs import counting
from bignas_jax.policies import distributions
from bignas_jax.policies.distributions import Factors
from bignas_jax.policies.policies import Child, Measured, Policy, Score, State
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.values import errors, schema


@dataclasses.dataclass(kw_only=True, slots=True)
class Settings:
  """What PARSEC depends on, in a config; FP-NAS is one of its settings.

  Attributes:
    samples: number of children in a step; 0: FP-NAS's, which follows from the
      entropy of the distribution.
    per_nat: FP-NAS's number of children for each nat of entropy.
    temperature: what log-likelihoods of a batch are divided by (`weights`).
    rate: learning rate of the logits.
    joins: number of updates after which all decisions of a block have one joint
      distribution (FP-NAS); 0: none ever has.
    macs: MACs above which an architecture costs (FP-NAS).
    cost: factor of the logarithm of the mean cost; 0: MACs do not matter.
  """

  samples: schema.Few = 8
  per_nat: schema.Positive = 0.25
  temperature: schema.Positive = 1.0
  rate: schema.Positive = 0.1
  joins: schema.Whole = 0
  macs: schema.AtLeastZero = 0.0
  cost: schema.AtLeastZero = 0.0


def parsec(space: Space, settings: Settings, images: int) -> Policy:
  """Returns the policy of PARSEC.

  A step trains several children of the distribution. Each child's gradient is
  weighted by the likelihood that it gives to the labels of the step's batch.
  Then the logits learn from the likelihoods of a batch of the second split.

  Args:
    space: space that children are drawn from.
    settings: number of children, and how the distribution learns.
    images: number of images in a batch.

  Raises:
    UserError: a step has one child, from which nothing can be learnt; or costs
      count, but there are no MACs above which an architecture costs.
  """
  _check(settings)
  separate = distributions.of_space(space)
  start, blocks = distributions.uniform(separate), distributions.blocks(space)
  joint, joint_start = distributions.joined(separate, start, blocks)
  factors_of = {'logits': separate, 'joint': joint}
  most = settings.samples or samples(start, settings.per_nat)

  def present(state: State) -> str:
    joined = settings.joins and state['done'][0] >= settings.joins
    return 'joint' if joined else 'logits'

  def init(seed: int) -> State:
    del seed
    state = {'done': np.zeros(1, np.int64), 'logits': start.copy()}
    return state | ({'joint': joint_start.copy()} if settings.joins else {})

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    name = present(state)
    factors, logits = factors_of[name], state[name]
    number = settings.samples or samples(logits, settings.per_nat)
    picks = distributions.draw(
      distributions.probabilities(logits),
      min(number, most),
      arch_lib.generator(seed, draw),
    )
    archs = [distributions.arch(space, factors, pick) for pick in picks]
    weight = np.full(len(archs), 1 / len(archs))
    if score is not None:
      weight = weights(-images * np.array(score(archs)), settings.temperature)
    pairs = zip(archs, weight, strict=True)
    return [Child('random', arch, float(share)) for arch, share in pairs]

  def update(state: State, children: list[Child], measured: Measured) -> State:
    done = state['done'] + 1
    after = state | {'done': done}
    loss = np.array([one['second_loss'] for one in measured], np.float64)
    if np.isfinite(loss).all():
      name, archs = present(state), [child.arch for child in children]
      factors, logits = factors_of[name], state[name]
      slope = _slope(space, settings, factors, logits, archs, -images * loss)
      after[name] = logits + settings.rate * slope
    if settings.joins == done[0]:
      _, after['joint'] = distributions.joined(
        separate, after['logits'], blocks
      )
    return after

  def learnt(state: State) -> Arch:
    name = present(state)
    best = distributions.most_probable(state[name])
    return distributions.arch(space, factors_of[name], best)

  return Policy(
    ('random',) * most,
    {},
    sample,
    varies=not settings.samples,
    scored=True,
    weighs=True,
    second_batches=1,
    init=init,
    update=update,
    learnt=learnt,
  )


def _check(settings: Settings) -> None:
  """Raises UserError as `parsec` does."""
  if settings.samples == 1:
    raise errors.UserError('parsec.samples', 1, 'at least 2, or 0')
  if settings.cost and not settings.macs:
    allowed = 'a number > 0, where parsec.cost is not 0'
    raise errors.UserError('parsec.macs', settings.macs, allowed)


def _slope(
  space: Space,
  settings: Settings,
  factors: Factors,
  logits: Float[np.ndarray, 'groups choices'],
  archs: list[Arch],
  log_likelihood: Float[np.ndarray, 'samples'],
) -> Float[np.ndarray, 'groups choices']:
  """Returns the gradient of what the logits maximise."""
  chosen = [distributions.chosen(space, arch) for arch in archs]
  picks = np.array([distributions.picked(factors, one) for one in chosen])
  matters = np.array(
    [distributions.groups_that_matter(space, factors, arch) for arch in archs]
  )
  slope = gradient(logits, picks, log_likelihood, settings.temperature, matters)
  if not settings.cost:
    return slope
  macs = [float(counting.cost(space, arch).macs) for arch in archs]
  macs, target = np.array(macs), settings.macs
  costs = cost_gradient(logits, picks, macs, target, matters)
  return slope - settings.cost * costs


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
  matters: Bool[np.ndarray, 'samples groups'] | None = None,
) -> Float[np.ndarray, 'groups choices']:
  """Returns an estimate of the gradient of the log marginal likelihood.

  The marginal likelihood is the mean of the likelihood over the distribution.
  The estimate's error goes to 0 with the number of samples.

  Args:
    logits: logits of the distribution.
    picks: samples from it.
    log_likelihood: of each sample, as in `weights`.
    temperature: as in `weights`.
    matters: as in `distributions.weighted_gradient`.
  """
  weight = weights(log_likelihood, temperature)
  return distributions.weighted_gradient(logits, picks, weight, matters)


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
  matters: Bool[np.ndarray, 'samples groups'] | None = None,
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
    matters: as in `distributions.weighted_gradient`.
  """
  cost = np.maximum(0, macs / target - 1)
  if not cost.any():
    return np.zeros_like(logits)
  share = cost / cost.sum()
  return distributions.weighted_gradient(logits, picks, share, matters)
