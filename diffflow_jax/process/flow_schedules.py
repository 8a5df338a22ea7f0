"""Schedules of flow matching papers, on the scale alpha + sigma = 1.

Those papers count time from noise to data: their time is 1 - t.
"""

import math

import jax
import jax.numpy as jnp

from diffflow_jax.process.faces import Schedule
from diffflow_jax.process.schedule import (
  ABOVE_0,
  FROM_0_BELOW_1,
  clip_far,
  log_product,
  schedule,
)


@schedule
class Flow(Schedule):
  """alpha : sigma = 1 - t : sigma_min + (1 - sigma_min) t, a straight line.

      logsnr = 2 log((1 - t)/t)      t = sigmoid(-logsnr/2)      sigma_min = 0

  Lipman et al., arXiv:2210.02747 eq. 20 (CondOT); Liu et al., arXiv:2209.03003
  eq. 1. With sigma_min > 0 the clean end keeps that much noise.

  Equation (schedule) of docs/math.
  """

  sigma_min: float = 0.0
  _allowed = {"sigma_min": FROM_0_BELOW_1}

  def pair(self, t):
    t = jnp.asarray(t)
    return 1.0 - t, self.sigma_min * (1.0 - t) + t

  def t(self, logsnr):
    half = 0.5 * jnp.asarray(logsnr)
    lost = self.sigma_min * jax.nn.sigmoid(half)
    return (jax.nn.sigmoid(-half) - lost) / (1.0 - lost)


@schedule
class Polynomial(Schedule):
  """alpha = (1 - t)^power, sigma = 1 - (1 - t)^power.

      logsnr = 2 log(alpha/(1 - alpha))     1 - t = sigmoid(logsnr/2)^(1/power)

  The convex polynomial path of flow matching; power = 1 is `Flow`.

  Equation (schedule) of docs/math.
  """

  power: float = 2.0
  _allowed = {"power": ABOVE_0}

  def pair(self, t):
    t = jnp.asarray(t, jnp.result_type(float, t))
    a = (1.0 - t) ** self.power
    early = t < 0.5  # where 1 - a would cancel
    near = -jnp.expm1(self.power * jnp.log1p(-jnp.where(early, t, 0.0)))
    return a, jnp.where(early, near, 1.0 - a)

  def t(self, logsnr):
    log_alpha = jax.nn.log_sigmoid(0.5 * jnp.asarray(logsnr))
    return -jnp.expm1(log_alpha / self.power)

  def log_speed(self, logsnr):
    # |dlogsnr/dt| = 2 power/((1 - t)(1 - alpha)), all from logsnr
    half = 0.5 * clip_far(logsnr)
    log_left = jax.nn.log_sigmoid(half) / self.power
    log_rate = jnp.log(self.power) - log_left - jax.nn.log_sigmoid(-half)
    return log_product(2.0 * half) + log_rate


_MOST = 2.0 / (math.pi - 2.0)  # of Mode's spread, beyond which it turns back


@schedule
class Mode(Schedule):
  """SD3's mode sampling as a schedule: uniform t on it is their law of times.

      alpha : sigma = h(1 - t) : h(t),   h(w) = (1 + s) w - s sin²(πw/2)

  Esser et al., arXiv:2403.03206 eq. 20, s = spread; -1 <= s <= 2/(π - 2), and
  s = 0 is `Flow`.

  Equation (schedule) of docs/math.
  """

  spread: float = 1.29
  _allowed = {
    "spread": (
      lambda s, others: (-1.0 <= s) & (s <= _MOST),
      f"between -1 and {_MOST:.4g}",
    )
  }

  def pair(self, t):
    t = jnp.asarray(t)
    h = lambda w: (
      (1.0 + self.spread) * w - self.spread * jnp.sin(0.5 * math.pi * w) ** 2
    )
    return h(1.0 - t), h(t)
