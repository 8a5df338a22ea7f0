"""Schedules of papers that count noise by sigma/alpha, on the ve scale."""

import math

import jax
import jax.numpy as jnp

from diffflow_jax.process.faces import Schedule
from diffflow_jax.process.schedule import (
  ABOVE_0,
  clip_far,
  log_product,
  schedule,
)


@schedule
class Geometric(Schedule):
  """sigma/alpha = sigma_min (sigma_max/sigma_min)^t, log-uniform.

      logsnr = -2 log sigma_min - 2 r t,   r = log(sigma_max/sigma_min)

  The VE SDE, Song et al., arXiv:2011.13456 app. C; NCSN, arXiv:1907.05600.

  Equation (schedule) of docs/math.
  """

  sigma_min: float = 0.01
  sigma_max: float = 50.0
  _allowed = {"sigma_min": ABOVE_0}

  def logsnr(self, t):
    t = jnp.asarray(t)
    low, high = jnp.log(self.sigma_min), jnp.log(self.sigma_max)
    return -2.0 * ((1.0 - t) * low + t * high)

  def pair(self, t):
    half = -0.5 * self.logsnr(t)
    return jnp.ones_like(half), jnp.exp(half)

  def t(self, logsnr):
    low, high = jnp.log(self.sigma_min), jnp.log(self.sigma_max)
    return -(0.5 * jnp.asarray(logsnr) + low) / (high - low)


@schedule
class Karras(Schedule):
  """sigma/alpha = (A + t (B - A))^rho, A = sigma_min^(1/rho), B likewise.

      logsnr = -2 rho log(A + t (B - A))

  Karras et al., arXiv:2206.00364 eq. 5: uniform t is their grid. Not clean at
  t = 0, where sigma/alpha = sigma_min.

  Equation (schedule) of docs/math.
  """

  sigma_min: float = 0.002
  sigma_max: float = 80.0
  rho: float = 7.0
  _allowed = {"sigma_min": ABOVE_0, "rho": ABOVE_0}

  def _root_ends(self):
    return self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (
      1.0 / self.rho
    )

  def pair(self, t):
    a, b = self._root_ends()
    t = jnp.asarray(t)
    return jnp.ones_like(t, jnp.result_type(float, t)), (
      a + t * (b - a)
    ) ** self.rho

  def t(self, logsnr):
    a, b = self._root_ends()
    return (jnp.exp(-0.5 * jnp.asarray(logsnr) / self.rho) - a) / (b - a)


EDGE = 2.0**-23  # where LogNormal's quantile function is continued


@schedule
class LogNormal(Schedule):
  """log(sigma/alpha) = p_mean + p_std Φ⁻¹(t): EDM's training law as a schedule.

      logsnr = -2 (p_mean + p_std Φ⁻¹(t))    t = Φ((-logsnr/2 - p_mean)/p_std)

  Karras et al., arXiv:2206.00364 Table 1. Uniform t on it draws EDM's levels.
  Φ⁻¹ goes on as a straight line within 2^-23 of the ends (5.2 standard
  deviations), so that t = 0 and t = 1 are finite levels.

  Equation (schedule) of docs/math.
  """

  p_mean: float = -1.2
  p_std: float = 1.2
  _allowed = {"p_std": ABOVE_0}

  def logsnr(self, t):
    t = jnp.asarray(t, jnp.result_type(float, t))
    inner = jnp.clip(t, EDGE, 1.0 - EDGE)
    xi = jax.scipy.special.ndtri(inner)
    slope = jnp.exp(0.5 * xi * xi) * math.sqrt(2.0 * math.pi)
    return -2.0 * (self.p_mean + self.p_std * (xi + (t - inner) * slope))

  def _xi(self, logsnr):
    return (-0.5 * jnp.asarray(logsnr) - self.p_mean) / self.p_std

  def t(self, logsnr):
    return jax.scipy.special.ndtr(self._xi(logsnr))

  def log_speed(self, logsnr):
    logsnr = clip_far(logsnr)
    xi = self._xi(logsnr)
    log_slope = 0.5 * xi * xi + 0.5 * math.log(2.0 * math.pi)
    return jnp.log(self.p_std) + log_slope + log_product(logsnr)
