"""Densities p(logsnr): how training draws its noise levels.

A density is how the loss is estimated, not what it is: the loss divides by p.
Anything will do that has

    logsnr(u)         its quantile function of u in (0, 1), either direction
    log_prob(logsnr)  log p(logsnr), with its constant

`Adaptive` (in `objective.adaptive`) follows the loss.
"""

import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.objective.adaptive import Adaptive, adaptive
from diffflow_jax.process import schedules
from diffflow_jax.process.names import make_from
from diffflow_jax.process.schedule import log_product

__all__ = [
  "Adaptive",
  "DENSITIES",
  "Normal",
  "UniformTime",
  "adaptive",
  "cosmap",
  "draw",
  "log_normal",
  "logit_normal",
  "make",
  "mode",
  "sech",
  "uniform",
  "uniforms",
]


def uniforms(key, num):
  """num low-discrepancy numbers in (0, 1): (i + u)/num with one u, shuffled.

  Kingma et al., arXiv:2107.00630 app. I.1: each is uniform, together they cover
  the interval evenly, and the loss has less variance. Shuffled, so that levels
  do not follow the order of the data. num is the global batch: under jit on
  any mesh the numbers are those of one device. Never 0 or 1 exactly.
  """
  shift_key, order_key = jax.random.split(key)
  i = jax.random.permutation(order_key, num)
  u = (i + jax.random.uniform(shift_key)) / num
  tiny = jnp.finfo(u.dtype).epsneg
  return jnp.clip(u, tiny, 1.0 - tiny)


def draw(density, key, num):
  """num levels from a density, low-discrepancy, as logsnr (num,)."""
  return density.logsnr(uniforms(key, num))


@struct.dataclass
class UniformTime:
  """Times uniform in [0, 1] on a schedule: p(logsnr) = |dt/dlogsnr|."""

  schedule: Any

  def logsnr(self, u):
    return self.schedule.logsnr(u)

  def log_prob(self, logsnr):
    """log p = log(½ a s / (dphi/dt)), -inf outside the schedule's range."""
    logsnr = jnp.asarray(logsnr, jnp.result_type(float, logsnr))
    t = self.schedule.t(logsnr)
    inside = (t > -1e-5) & (t < 1.0 + 1e-5)
    log_speed = self.schedule.log_speed(logsnr)
    log_prob = log_product(logsnr) - log_speed - math.log(2.0)
    return jnp.where(inside, log_prob, -jnp.inf)


@struct.dataclass
class Normal:
  """logsnr ~ N(mean, std²)."""

  mean: Any = 2.4
  std: Any = 2.4

  def logsnr(self, u):
    return self.mean - self.std * jax.scipy.special.ndtri(u)

  def log_prob(self, logsnr):
    return jax.scipy.stats.norm.logpdf(logsnr, self.mean, self.std)


def log_normal(p_mean=-1.2, p_std=1.2):
  """EDM: ln(sigma/alpha) ~ N(p_mean, p_std²), arXiv:2206.00364 Table 1."""
  _check_positive("p_std", p_std)
  return Normal(-2.0 * p_mean, 2.0 * p_std)


def logit_normal(mean=0.0, std=1.0, shift=1.0):
  """SD3: t = sigmoid(mean + std xi) on the flow schedule, then shifted.

  Esser et al., arXiv:2403.03206 eq. 19 and 23; t = 1 is noise, as in theirs.
  Papers whose time runs the other way mean -mean.
  """
  _check_positive("std", std)
  _check_positive("shift", shift)
  return Normal(-2.0 * mean - 2.0 * math.log(shift), 2.0 * std)


def mode(spread=1.29):
  """SD3's mode sampling, arXiv:2403.03206 eq. 20: uniform t on `Mode`."""
  if not -1.0 <= spread <= 2.0 / (math.pi - 2.0):
    raise ValueError(
      f"spread must be between -1 and {2.0 / (math.pi - 2.0):.4g}, not {spread}"
    )
  return UniformTime(schedules.Mode(spread))


def cosmap():
  """SD3's CosMap, t = 1 - 1/(tan(πu/2) + 1), arXiv:2403.03206 §3.1.

  On the flow schedule sigma/alpha = t/(1 - t) = tan(πu/2): it is the cosine
  schedule's own law, `sech()`.
  """
  return sech()


def uniform(logsnr_min=-15.0, logsnr_max=15.0):
  """Uniform between two levels."""
  return UniformTime(
    schedules.check(schedules.LinearLogSNR(logsnr_min, logsnr_max))
  )


def sech(mean=0.0):
  """p = sech((logsnr - mean)/2)/(2π): uniform t on a shifted cosine."""
  return UniformTime(schedules.Shift(schedules.Cosine(), math.exp(-0.5 * mean)))


def _check_positive(name, value):
  if not value > 0:
    raise ValueError(f"{name} must be above 0, not {value}")


DENSITIES = {
  "log_normal": log_normal,
  "logit_normal": logit_normal,
  "mode": mode,
  "cosmap": cosmap,
  "uniform": uniform,
  "sech": sech,
  "adaptive": adaptive,
}


def make(name, **kwargs):
  """The density of a name: make("logit_normal", mean=0.5)."""
  return make_from(DENSITIES, "density", name, kwargs)
