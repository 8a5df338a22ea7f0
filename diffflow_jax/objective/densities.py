"""Densities p(logsnr): how training draws its noise levels.

A density is how the loss is estimated, not what it is: the loss divides by p.
Anything will do that has

    logsnr(u)         its quantile function of u in (0, 1), either direction
    log_prob(logsnr)  log p(logsnr), with its constant

`Adaptive` (in `objective.adaptive`) follows the loss.
"""

import functools
import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.objective.adaptive import (
  Adaptive,
  adaptive,
  adaptive_for,
)
from diffflow_jax.process import ranges, schedules
from diffflow_jax.process.faces import Node
from diffflow_jax.process.names import make_from
from diffflow_jax.process.schedule import log_product

__all__ = [
  "Adaptive",
  "DENSITIES",
  "Normal",
  "UniformTime",
  "adaptive",
  "adaptive_for",
  "cosmap",
  "draw",
  "log_normal",
  "logit_normal",
  "make",
  "mode",
  "sech",
  "uniform",
  "uniform_time",
  "uniforms",
]


@functools.lru_cache(maxsize=8)
def _scattered(num):
  """0 … num-1 in an order without order, the same everywhere; then again.

  Sorted by Murmur3's finaliser of the index, so that no version of a random
  number generator can change it.
  """
  h = np.arange(1, num + 1, dtype=np.uint32)
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
  order = np.argsort(h ^ (h >> np.uint32(16)), kind="stable").astype(np.int32)
  return np.concatenate([order, order])


def uniforms(key, num):
  """num low-discrepancy numbers in (0, 1): (i + u)/num with one u, scattered.

  Kingma et al., arXiv:2107.00630 app. I.1: each is uniform, together they cover
  the interval evenly, and the loss has less variance. The order is a fixed
  scattered one, begun at a random place and moved by a random number of strata:
  where the i-th example's level lies says nothing of i, and two examples'
  levels lie to each other as after a shuffle, which is all that the variance of
  a mean sees; a shuffle is a sort, and costs ten times as much. num is the
  global batch: under jit on any mesh the numbers are those of one device. Never
  0 or 1 exactly.
  """
  place, strata, u = jax.random.uniform(key, (3,))
  whole = lambda r: jnp.minimum((r * num).astype(jnp.int32), num - 1)
  i = jax.lax.dynamic_slice_in_dim(_scattered(num), whole(place), num)
  u = ((i + whole(strata)) % num + u) / num
  tiny = jnp.finfo(u.dtype).epsneg
  return jnp.clip(u, tiny, 1.0 - tiny)


def draw(density, key, num):
  """num levels from a density, low-discrepancy, as logsnr (num,)."""
  return density.logsnr(uniforms(key, num))


@struct.dataclass
class UniformTime:
  """Times uniform in [0, 1] on a schedule: p(logsnr) = |dt/dlogsnr|.

  Equation (density) of docs/math.
  """

  schedule: Any

  def logsnr(self, u):
    return self.schedule.logsnr(u)

  def inside(self, logsnr):
    """Whether levels are within the schedule's range."""
    # by levels: a schedule's t(logsnr) may stop at its ends, as a table's does
    hi, lo = self.schedule.logsnr(jnp.array([0.0, 1.0], logsnr.dtype))
    slack = 1e-5 * (1.0 + jnp.minimum(jnp.abs(logsnr), 60.0))
    return (logsnr <= hi + slack) & (logsnr >= lo - slack)

  def log_prob(self, logsnr):
    """log p = log(½ a s / (dphi/dt)), -inf outside the schedule's range."""
    logsnr = jnp.asarray(logsnr, jnp.result_type(float, logsnr))
    inside = self.inside(logsnr)
    log_speed = self.schedule.log_speed(logsnr)
    log_prob = log_product(logsnr) - log_speed - math.log(2.0)
    return jnp.where(inside, log_prob, -jnp.inf)


@ranges.node
class Normal(Node):
  """logsnr ~ N(mean, std²). Equation (density) of docs/math."""

  mean: Any = 2.4
  std: Any = 2.4
  _allowed = {"std": "> 0"}

  def logsnr(self, u):
    return self.mean - self.std * jax.scipy.special.ndtri(u)

  def log_prob(self, logsnr):
    return jax.scipy.stats.norm.logpdf(logsnr, self.mean, self.std)


@ranges.checked(p_std="> 0")
def log_normal(p_mean=-1.2, p_std=1.2):
  """EDM: ln(sigma/alpha) ~ N(p_mean, p_std²), arXiv:2206.00364 Table 1.

  Equation (density) of docs/math.
  """
  return Normal(-2.0 * p_mean, 2.0 * p_std)


@ranges.checked(std="> 0", shift="> 0")
def logit_normal(mean=0.0, std=1.0, shift=1.0):
  """SD3: t = sigmoid(mean + std xi) on the flow schedule, then shifted.

  Esser et al., arXiv:2403.03206 eq. 19 and 23; t = 1 is noise, as in theirs.
  Papers whose time runs the other way mean -mean.

  Equation (density) of docs/math.
  """
  return Normal(-2.0 * mean - 2.0 * _of_number("log", shift), 2.0 * std)


def mode(spread=1.29):
  """SD3's mode sampling, arXiv:2403.03206 eq. 20: uniform t on `Mode`.

  Equation (density) of docs/math.
  """
  return UniformTime(schedules.check(schedules.Mode(spread)))


def cosmap():
  """SD3's CosMap, t = 1 - 1/(tan(πu/2) + 1), arXiv:2403.03206 §3.1.

  On the flow schedule sigma/alpha = t/(1 - t) = tan(πu/2): it is the cosine
  schedule's own law, `sech()`.

  Equation (density) of docs/math.
  """
  return sech()


def uniform(logsnr_min=-15.0, logsnr_max=15.0):
  """p = 1/(logsnr_max - logsnr_min) between two levels.

  VDM's draws, arXiv:2107.00630 with its fixed linear schedule.

  Equation (density) of docs/math.
  """
  return UniformTime(
    schedules.check(schedules.LinearLogSNR(logsnr_min, logsnr_max))
  )


@ranges.checked
def sech(mean=0.0):
  """p = sech((logsnr - mean)/2)/(2π): uniform t on a shifted cosine.

  Nichol & Dhariwal's cosine, arXiv:2102.09672 §3.2 with no offset, moved as in
  arXiv:2301.11093 §3.1.

  Equation (density) of docs/math.
  """
  return UniformTime(
    schedules.Shift(schedules.Cosine(), _of_number("exp", -0.5 * mean))
  )


def _of_number(function, value):
  """math's log or exp of a plain number, to all its digits; jnp's of arrays."""
  where = jnp if isinstance(value, jax.Array) else math
  return getattr(where, function)(value)


def uniform_time(recipe):
  """Times uniform on a recipe's schedule, `UniformTime`."""
  return UniformTime(recipe.schedule)


# name -> factory of plain numbers; where its first argument is `recipe`, the
# density is on the levels of that Objective's schedule
DENSITIES = {
  "uniform_time": uniform_time,
  "log_normal": log_normal,
  "logit_normal": logit_normal,
  "mode": mode,
  "cosmap": cosmap,
  "uniform": uniform,
  "sech": sech,
  "adaptive": adaptive_for,
}


def make(name, recipe=None, **kwargs):
  """The density of a name: make("sech", mean=1.0), make("adaptive", recipe).

  Raises:
    ValueError: unknown name or argument, a recipe that is missing, or a number
      out of its range.
  """
  return make_from(DENSITIES, "density", name, kwargs, recipe)
