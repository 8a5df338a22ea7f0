"""Schedules of variance preserving papers: betas, cosines, sigmoids.

Each docstring gives (alpha, sigma) as its paper does, on the vp scale; the
pairs that are computed may differ by a common factor, and are written so that
no digits cancel at either end.
"""

import math

import jax
import jax.numpy as jnp

from diffflow_jax.process.schedule import log_product, root, schedule


@schedule
class VPLinear:
  """alpha = e^(-B/2), sigma² = 1 - e^-B, B = beta_min t + ½ (Δbeta) t².

      logsnr = -log expm1(B)
      t = 2 L/(beta_min + √(beta_min² + 2 Δbeta L)),   L = softplus(-logsnr)

  Song et al., arXiv:2011.13456 eq. 33: the VP SDE with beta(t) linear. DDPM's
  own table differs from it by O(1/T): `ddpm_table`.
  """

  beta_min: float = 0.1
  beta_max: float = 20.0

  def _integral(self, t):
    return (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t) * t

  def pair(self, t):
    b = self._integral(jnp.asarray(t))
    return jnp.exp(-0.5 * b), root(-jnp.expm1(-b))

  def t(self, logsnr):
    l = jax.nn.softplus(-jnp.asarray(logsnr))
    slope = 2.0 * (self.beta_max - self.beta_min)
    return 2.0 * l / (self.beta_min + jnp.sqrt(self.beta_min**2 + slope * l))


@schedule
class SubVP:
  """alpha = e^(-B/2), sigma = 1 - e^-B, B as in VPLinear.

  The sub-VP SDE's kernel, Song et al., arXiv:2011.13456 eq. 29. alpha² + sigma
  = 1 is the scale `sub_vp`; on any other scale the levels are the same.
  """

  beta_min: float = 0.1
  beta_max: float = 20.0

  def pair(self, t):
    b = VPLinear._integral(self, jnp.asarray(t))
    return jnp.exp(-0.5 * b), -jnp.expm1(-b)

  def t(self, logsnr):
    # sigma/alpha = 2 sinh(B/2)
    b = 2.0 * jnp.arcsinh(0.5 * jnp.exp(-0.5 * jnp.asarray(logsnr)))
    slope = 2.0 * (self.beta_max - self.beta_min)
    return 2.0 * b / (self.beta_min + jnp.sqrt(self.beta_min**2 + slope * b))


@schedule
class Cosine:
  """alpha : sigma = cos(πt/2) : sin(πt/2).

      logsnr = -2 log tan(πt/2)      t = (2/π) atan exp(-logsnr/2)

  Nichol & Dhariwal, arXiv:2102.09672 §3.2, with offset s = 0.
  """

  def pair(self, t):
    # Both as sines: the cosine's float32 rounding would leave alpha(1) != 0.
    t = jnp.asarray(t)
    return jnp.sin(0.5 * math.pi * (1.0 - t)), jnp.sin(0.5 * math.pi * t)

  def t(self, logsnr):
    return jnp.arctan(jnp.exp(-0.5 * jnp.asarray(logsnr))) * (2.0 / math.pi)


@schedule
class TruncatedCosine:
  """The cosine schedule between two levels: phi = phi_0 + t (phi_1 - phi_0).

      phi_0 = atan e^(-logsnr_max/2),   phi_1 = atan e^(-logsnr_min/2)

  Hoogeboom et al., arXiv:2301.11093 app. A; Kingma & Gao, arXiv:2303.00848.
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
class OffsetCosine:
  """alpha = cos(theta)/cos(theta_0), theta = (t + s)/(1 + s) · π/2.

  Nichol & Dhariwal, arXiv:2102.09672 eq. 17, offset s = 0.008. With
  cos² A - cos² B = sin(B - A) sin(B + A),

      alpha : sigma = cos(theta) : √(sin(theta - theta_0) sin(theta + theta_0))
  """

  offset: float = 0.008

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


@schedule
class Sigmoid:
  """alpha² = (S_b - S_y)/(S_b - S_a), S_y = sigmoid(y/tau), y = a + t (b - a).

  Jabri et al., arXiv:2212.11972; Chen, arXiv:2301.10972 Alg. 1. As a ratio,

      alpha² : sigma² = sinh((1-t) w)/cosh(b/2tau) : sinh(t w)/cosh(a/2tau)

  with w = (b - a)/(2 tau). Not the beta table that others call sigmoid.
  """

  start: float = -3.0
  end: float = 3.0
  tau: float = 0.9

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
    w, logsnr = self._width(), jnp.clip(logsnr, -60.0, 60.0)
    r, angle = self._from_the_near_end(logsnr)
    log_larger = jnp.log(jnp.sinh(w - angle))
    log_rate = jnp.log(w * jnp.sinh(w)) - 2.0 * log_larger + jnp.abs(r)
    return log_product(logsnr) + log_rate - math.log(2.0)


@schedule
class LinearLogSNR:
  """logsnr = logsnr_max + t (logsnr_min - logsnr_max).

  VDM's fixed schedule, Kingma et al., arXiv:2107.00630 §6: gamma = -logsnr from
  -13.3 to 5. Uniform t on it is uniform in logsnr.
  """

  logsnr_min: float = -5.0
  logsnr_max: float = 13.3

  def logsnr(self, t):
    t = jnp.asarray(t)
    return (1.0 - t) * self.logsnr_max + t * self.logsnr_min

  def t(self, logsnr):
    span = self.logsnr_max - self.logsnr_min
    return (self.logsnr_max - jnp.asarray(logsnr)) / span
