"""Densities p(logsnr): how training draws its noise levels.

A density is how the loss is estimated, not what it is: the loss divides by p.
Anything will do that has

    logsnr(u)         its quantile function of u in (0, 1), either direction
    log_prob(logsnr)  log p(logsnr)
"""

import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.process.schedule import log_product


def uniforms(key, num):
  """num low-discrepancy numbers in (0, 1): (i + u)/num with one u.

  Kingma et al., arXiv:2107.00630 app. I.1: each is uniform, together they cover
  the interval evenly, and the loss has less variance. Never 0 or 1 exactly.
  """
  u = jax.random.uniform(key)
  u = (jnp.arange(num) + u) / num
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
  """logsnr ~ N(mean, std²).

  EDM's ln(sigma/alpha) ~ N(P_mean, P_std²) (arXiv:2206.00364 Table 1) is mean =
  -2 P_mean, std = 2 P_std; logit-normal times on the flow schedule, t =
  sigmoid(m + s xi) (arXiv:2403.03206 eq. 19), are mean = -2m, std = 2s.
  """

  mean: Any = 2.4
  std: Any = 2.4

  def logsnr(self, u):
    return self.mean - self.std * jax.scipy.special.ndtri(u)

  def log_prob(self, logsnr):
    return jax.scipy.stats.norm.logpdf(logsnr, self.mean, self.std)
