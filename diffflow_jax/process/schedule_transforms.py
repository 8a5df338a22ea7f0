"""Schedules made of another schedule: shifts and zero terminal SNR."""

from typing import Any

import jax
import jax.numpy as jnp

from diffflow_jax.process.faces import Schedule
from diffflow_jax.process.schedule import (
  ABOVE_0,
  root,
  schedule,
  unit_pair,
)


@schedule
class Shift(Schedule):
  """The base schedule with factor times the noise: logsnr - 2 log(factor).

  Two names for one thing: SD3's timestep shift k on the flow schedule, t' =
  k t/(1 + (k - 1) t) (Esser et al., arXiv:2403.03206 eq. 23), and the shift to
  images of side d from a base of side d_0, factor = d/d_0 (Hoogeboom et al.,
  arXiv:2301.11093 §3.1). Shifts compose by product.

  Equation (schedule) of docs/math.
  """

  base: Any
  factor: float = 1.0
  _allowed = {"factor": ABOVE_0}

  def pair(self, t):
    a, s = self.base.pair(t)
    return a, s * self.factor

  def _base_logsnr(self, logsnr):
    return jnp.asarray(logsnr) + 2.0 * jnp.log(self.factor)

  def t(self, logsnr):
    return self.base.t(self._base_logsnr(logsnr))


@schedule
class InterpolatedShift(Schedule):
  """A shift that moves with time: factor = clean^(1 - t) noisy^t.

      logsnr = base logsnr - 2 ((1 - t) log clean + t log noisy)

  Hoogeboom et al., arXiv:2301.11093 ("interpolated"): for images of
  side d, d/32 at the noisy end keeps global structure and d/256 at the clean
  end keeps detail, for example.

  Equation (schedule) of docs/math.
  """

  base: Any
  clean: float = 1.0
  noisy: float = 1.0
  _allowed = {"clean": ABOVE_0, "noisy": ABOVE_0}

  def pair(self, t):
    a, s = self.base.pair(t)
    t = jnp.asarray(t)
    log_factor = (1.0 - t) * jnp.log(self.clean) + t * jnp.log(self.noisy)
    return a, s * jnp.exp(log_factor)


@schedule
class ZeroTerminal(Schedule):
  """The base schedule rescaled to alpha = 0 at t = 1.

      alpha' = (alpha - alpha_1) alpha_0/(alpha_0 - alpha_1),  alpha'² + s'² = 1

  Lin et al., arXiv:2305.08891 Alg. 1, with alpha of the base on the vp scale
  and alpha_0, alpha_1 its ends. An eps-predicting network is undefined there.

  alpha - alpha_1 has lost its digits near t = 1, unless the base has a `fall`,
  as a `Table` has: alpha²/alpha_1² = 1 + sigma² expm1(logsnr - logsnr_1).

  Equation (schedule) of docs/math.
  """

  base: Any

  def _vp(self, t):
    a, s = self.base.pair(t)
    norm = jnp.sqrt(a * a + s * s)
    return a / norm, s / norm

  def _ends(self):
    (a_0, s_0), (a_1, _) = self._vp(0.0), self._vp(1.0)
    return a_0, s_0, a_1

  def _above_its_end(self, t, a, s, a_1):
    """alpha - alpha_1 of the base, 0 at t = 1."""
    gap = a - a_1
    if hasattr(self.base, "fall"):
      fall = self.base.fall(t)
      near = a_1**2 * s**2 * jnp.expm1(jnp.minimum(fall, 1.0)) / (a + a_1)
      return jnp.where(fall < 1.0, near, gap)
    # exactly 0 at t = 1, whatever the compiler does to two calls
    return jnp.where(t == 1.0, gap - jax.lax.stop_gradient(gap), gap)

  def pair(self, t):
    t = jnp.asarray(t, jnp.result_type(float, t))
    a, s = self._vp(t)
    a_0, s_0, a_1 = self._ends()
    left = self._above_its_end(t, a, s, a_1) * a_0 / (a_0 - a_1)
    # a_0 - a = (s² - s_0²)/(a_0 + a) and a - alpha' = a_1 (a_0 - a)/(a_0 - a_1)
    moved = a_1 * (s - s_0) * (s + s_0) / ((a_0 + a) * (a_0 - a_1))
    return left, root(s * s + moved * (a + left))

  def t(self, logsnr):
    left, s_left = unit_pair(logsnr)
    a_0, s_0, a_1 = self._ends()
    a = a_1 + left * (a_0 - a_1) / a_0
    gain = (a_0 - a_1) * (a_0 + a) / (a_0 * (a_0 + left))
    s2 = s_0 * s_0 + (s_left - s_0) * (s_left + s_0) * gain
    return self.base.t(2.0 * jnp.log(a) - jnp.log(jnp.maximum(s2, 1e-30)))
