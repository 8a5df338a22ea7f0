"""Schedules of variance preserving papers: linear betas, sigmoids, log-SNR.

Each docstring gives (alpha, sigma) as its paper does, on the vp scale; the
pairs that are computed may differ by a common factor, and are written so that
no digits cancel at either end.
"""

import math

import jax
import jax.numpy as jnp

from diffflow_jax.process.faces import Schedule
from diffflow_jax.process.schedule import (
  ABOVE_0,
  clip_far,
  log_product,
  root,
  schedule,
)


def _integral(beta_min, beta_max, t):
  """B(t) = ∫ beta = beta_min t + ½ (beta_max - beta_min) t²."""
  return (beta_min + 0.5 * (beta_max - beta_min) * t) * t


def _time_of_integral(beta_min, beta_max, b):
  """Its inverse, the root of the quadratic that does not cancel."""
  slope = 2.0 * (beta_max - beta_min)
  return 2.0 * b / (beta_min + jnp.sqrt(beta_min**2 + slope * b))


@schedule
class VPLinear(Schedule):
  """alpha = e^(-B/2), sigma² = 1 - e^-B, B = beta_min t + ½ (Δbeta) t².

      logsnr = -log expm1(B)
      t = 2 L/(beta_min + √(beta_min² + 2 Δbeta L)),   L = softplus(-logsnr)

  Song et al., arXiv:2011.13456 eq. 33: the VP SDE with beta(t) linear. DDPM's
  own table differs from it by O(1/T): `ddpm_table`.

  Equation (schedule) of docs/math.
  """

  beta_min: float = 0.1
  beta_max: float = 20.0

  _allowed = {"beta_min": ABOVE_0}

  def pair(self, t):
    b = _integral(self.beta_min, self.beta_max, jnp.asarray(t))
    return jnp.exp(-0.5 * b), root(-jnp.expm1(-b))

  def t(self, logsnr):
    b = jax.nn.softplus(-jnp.asarray(logsnr))
    return _time_of_integral(self.beta_min, self.beta_max, b)


@schedule
class SubVP(Schedule):
  """alpha = e^(-B/2), sigma = 1 - e^-B, B as in VPLinear.

  The sub-VP SDE's kernel, Song et al., arXiv:2011.13456 eq. 29. alpha² + sigma
  = 1 is the scale `sub_vp`; on any other scale the levels are the same.

  Equation (schedule) of docs/math.
  """

  beta_min: float = 0.1
  beta_max: float = 20.0

  _allowed = {"beta_min": ABOVE_0}

  def pair(self, t):
    b = _integral(self.beta_min, self.beta_max, jnp.asarray(t))
    return jnp.exp(-0.5 * b), -jnp.expm1(-b)

  def t(self, logsnr):
    # sigma/alpha = 2 sinh(B/2)
    b = 2.0 * jnp.arcsinh(0.5 * jnp.exp(-0.5 * jnp.asarray(logsnr)))
    return _time_of_integral(self.beta_min, self.beta_max, b)


@schedule
class Sigmoid(Schedule):
  """alpha² = (S_b - S_y)/(S_b - S_a), S_y = sigmoid(y/tau), y = a + t (b - a).

  Jabri et al., arXiv:2212.11972; Chen, arXiv:2301.10972 Alg. 1. As a ratio,

      alpha² : sigma² = sinh((1-t) w)/cosh(b/2tau) : sinh(t w)/cosh(a/2tau)

  with w = (b - a)/(2 tau). Not the beta table that others call sigmoid.

  Equation (schedule) of docs/math.
  """

  start: float = -3.0
  end: float = 3.0
  tau: float = 0.9
  _allowed = {"tau": ABOVE_0}

  def _width(self):
    return 0.5 * (self.end - self.start) / self.tau

  def _cosh(self):
    ends = jnp.array([self.start, self.end]) / (2.0 * self.tau)
    return jnp.cosh(ends)

  def pair(self, t):
    t, w, (cosh_a, cosh_b) = jnp.asarray(t), self._width(), self._cosh()
    return (
      root(jnp.sinh((1.0 - t) * w) / cosh_b),
      root(jnp.sinh(t * w) / cosh_a),
    )

  def _from_the_near_end(self, logsnr):
    """(log ratio r of the sinhs, w times the time to the nearer end)."""
    w, (cosh_a, cosh_b) = self._width(), self._cosh()
    r = jnp.asarray(logsnr) + jnp.log(cosh_b / cosh_a)
    small = jnp.exp(jnp.where(r > 0.0, -r, r))  # not abs: r = 0 is no kink
    return r, jnp.arctanh(jnp.sinh(w) * small / (1.0 + jnp.cosh(w) * small))

  def t(self, logsnr):
    r, angle = self._from_the_near_end(logsnr)
    share = angle / self._width()
    return jnp.where(r > 0.0, share, 1.0 - share)

  def log_speed(self, logsnr):
    # |dlogsnr/dt| = w sinh w/(sinh(tw) sinh((1-t)w)); infinite at both ends
    w, logsnr = self._width(), clip_far(logsnr)
    r, angle = self._from_the_near_end(logsnr)
    log_larger = jnp.log(jnp.sinh(w - angle))
    log_rate = jnp.log(w * jnp.sinh(w)) - 2.0 * log_larger + jnp.abs(r)
    return log_product(logsnr) + log_rate - math.log(2.0)


@schedule
class LinearLogSNR(Schedule):
  """logsnr = logsnr_max + t (logsnr_min - logsnr_max).

  VDM's fixed schedule, Kingma et al., arXiv:2107.00630: gamma = -logsnr from
  -13.3 to 5. Uniform t on it is uniform in logsnr.

  Equation (schedule) of docs/math.
  """

  logsnr_min: float = -5.0
  logsnr_max: float = 13.3

  def logsnr(self, t):
    t = jnp.asarray(t)
    return (1.0 - t) * self.logsnr_max + t * self.logsnr_min

  def t(self, logsnr):
    span = self.logsnr_max - self.logsnr_min
    return (self.logsnr_max - jnp.asarray(logsnr)) / span
