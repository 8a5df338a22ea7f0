"""Cosine schedules: the angle atan(sigma/alpha) is (nearly) linear in time.

Pairs may differ from the papers' (alpha, sigma) by a common factor, and are
written so that no digits cancel at either end.
"""

import math

import jax
import jax.numpy as jnp

from diffflow_jax.process.faces import Schedule
from diffflow_jax.process.schedule import FROM_0_BELOW_1, root, schedule


@schedule
class Cosine(Schedule):
  """alpha : sigma = cos(πt/2) : sin(πt/2).

      logsnr = -2 log tan(πt/2)      t = (2/π) atan exp(-logsnr/2)

  Nichol & Dhariwal, arXiv:2102.09672 §3.2, with offset s = 0.

  Equation (schedule) of docs/math.
  """

  def pair(self, t):
    # Both as sines: the cosine's float32 rounding would leave alpha(1) != 0.
    t = jnp.asarray(t)
    return jnp.sin(0.5 * math.pi * (1.0 - t)), jnp.sin(0.5 * math.pi * t)

  def t(self, logsnr):
    return jnp.arctan(jnp.exp(-0.5 * jnp.asarray(logsnr))) * (2.0 / math.pi)


@schedule
class TruncatedCosine(Schedule):
  """The cosine schedule between two levels: phi = phi_0 + t (phi_1 - phi_0).

      phi_0 = atan e^(-logsnr_max/2),   phi_1 = atan e^(-logsnr_min/2)

  Hoogeboom et al., arXiv:2301.11093; Kingma & Gao, arXiv:2303.00848.

  Equation (schedule) of docs/math.
  """

  logsnr_min: float = -15.0
  logsnr_max: float = 15.0

  def _angles(self, sign):
    angle = lambda l: jnp.arctan(jnp.exp(sign * 0.5 * jnp.asarray(l)))
    return angle(self.logsnr_max), angle(self.logsnr_min)

  def pair(self, t):
    t = jnp.asarray(t)
    clean, noisy = self._angles(-1.0)
    co_clean, co_noisy = self._angles(1.0)  # π/2 - phi, to its own last digit
    return (
      jnp.sin((1.0 - t) * co_clean + t * co_noisy),
      jnp.sin((1.0 - t) * clean + t * noisy),
    )

  def t(self, logsnr):
    clean, noisy = self._angles(-1.0)
    phi = jnp.arctan(jnp.exp(-0.5 * jnp.asarray(logsnr)))
    return (phi - clean) / (noisy - clean)


@schedule
class OffsetCosine(Schedule):
  """alpha = cos(theta)/cos(theta_0), theta = (t + s)/(1 + s) · π/2.

  Nichol & Dhariwal, arXiv:2102.09672 eq. 17, offset s = 0.008. With
  cos² A - cos² B = sin(B - A) sin(B + A),

      alpha : sigma = cos(theta) : √(sin(theta - theta_0) sin(theta + theta_0))

  Equation (schedule) of docs/math.
  """

  offset: float = 0.008
  _allowed = {"offset": FROM_0_BELOW_1}

  def pair(self, t):
    t = jnp.asarray(t)
    unit = 0.5 * math.pi / (1.0 + self.offset)
    sin_minus = jnp.sin(t * unit)
    sin_plus = jnp.sin((t + 2.0 * self.offset) * unit)
    return jnp.sin((1.0 - t) * unit), root(sin_minus * sin_plus)

  def t(self, logsnr):
    logsnr = jnp.asarray(logsnr)
    unit = 0.5 * math.pi / (1.0 + self.offset)
    sin_0 = jnp.sin(self.offset * unit)
    cos_0 = jnp.cos(self.offset * unit)
    alpha2, sigma2 = jax.nn.sigmoid(logsnr), jax.nn.sigmoid(-logsnr)
    cos = cos_0 * jnp.sqrt(alpha2)
    sin = jnp.sqrt(sigma2 + sin_0**2 * alpha2)
    # theta - theta_0, whose sine is cos_0² sigma²/sin(theta + theta_0)
    sin_minus = cos_0**2 * sigma2 / (sin * cos_0 + cos * sin_0)
    return jnp.arctan2(sin_minus, cos * cos_0 + sin * sin_0) / unit
