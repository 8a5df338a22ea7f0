"""Schedules: how the noise level falls with time, t = 0 data, t = 1 noise.

A noise level is the ratio alpha : sigma; logsnr = log(alpha²/sigma²) is its
coordinate. A schedule says which level belongs to which time, in two forms:

    pair(t)    any (a, s) with a : s = alpha : sigma      finite at both ends
    logsnr(t)  2 log(a/s), decreasing in t                ±inf at exact ends
    t(logsnr)  the inverse

How large z is (alpha² + sigma² = 1, alpha = 1, ...) is not the schedule's
business: `levels` normalises the pair. Pairs and not logsnr carry the exact
ends: at t = 1 the flow schedule's pair is (0, 1), with derivative (-1, 1).
"""

import math

from flax import struct
import jax
import jax.numpy as jnp


def unit_pair(logsnr):
  """The (a, s) of a level with a² + s² = 1; (0, 1) and (1, 0) at ∓inf."""
  logsnr = jnp.asarray(logsnr)
  return (
    jnp.exp(0.5 * jax.nn.log_sigmoid(logsnr)),
    jnp.exp(0.5 * jax.nn.log_sigmoid(-logsnr)),
  )


def pair_logsnr(a, s):
  """log(a²/s²), as a difference of logs so that neither end overflows."""
  return 2.0 * (jnp.log(a) - jnp.log(s))


def _bisect(self, logsnr):
  """t(logsnr) of any decreasing logsnr(t) on [0, 1], differentiable."""
  logsnr = jnp.asarray(logsnr, jnp.result_type(float, logsnr))
  lo, hi = jnp.zeros_like(logsnr), jnp.ones_like(logsnr)

  def halve(_, bracket):
    lo, hi = bracket
    mid = 0.5 * (lo + hi)
    cleaner = self.logsnr(mid) > logsnr
    return jnp.where(cleaner, mid, lo), jnp.where(cleaner, hi, mid)

  num_halvings = jnp.finfo(logsnr.dtype).nmant + 8
  lo, hi = jax.lax.fori_loop(0, num_halvings, halve, (lo, hi))
  t = jax.lax.stop_gradient(0.5 * (lo + hi))
  # One Newton step: the root hardly moves, but it carries the derivative of
  # the implicit function, to logsnr and to the schedule's parameters.
  value, slope = jax.jvp(self.logsnr, (t,), (jnp.ones_like(t),))
  step = (value - logsnr) / jax.lax.stop_gradient(slope)
  return jnp.where(jnp.isfinite(step), t - step, t)


def schedule(cls):
  """Class decorator: completes a schedule and makes it a frozen pytree.

  The class needs `logsnr(t)` or `pair(t)`, elementwise in t of any shape and
  decreasing in logsnr. The other one is derived, and `t(logsnr)` is found by
  bisection where the class has none. Annotated fields become pytree leaves:
  change one, or differentiate through it, and nothing is retraced.

    @dfj.schedules.schedule
    class Quadratic:
      top: float = 10.0
      def logsnr(self, t):
        return self.top * (1 - 2 * t**2)
  """
  if not hasattr(cls, "logsnr") and not hasattr(cls, "pair"):
    raise TypeError(f"schedule {cls.__name__} needs logsnr(t) or pair(t)")
  if not hasattr(cls, "pair"):
    cls.pair = lambda self, t: unit_pair(self.logsnr(t))
  if not hasattr(cls, "logsnr"):
    cls.logsnr = lambda self, t: pair_logsnr(*self.pair(t))
  if not hasattr(cls, "t"):
    cls.t = _bisect
  return struct.dataclass(cls)


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
class Flow:
  """alpha : sigma = 1 - t : t, the straight line of flow matching (CondOT).

      logsnr = 2 log((1 - t)/t)      t = sigmoid(-logsnr/2)

  Lipman et al., arXiv:2210.02747 eq. 20 with sigma_min = 0; Liu et al.,
  arXiv:2209.03003 eq. 1. Both count time from noise to data: theirs is 1 - t.
  """

  def pair(self, t):
    t = jnp.asarray(t)
    return 1.0 - t, t

  def t(self, logsnr):
    return jax.nn.sigmoid(-0.5 * jnp.asarray(logsnr))


@schedule
class Karras:
  """sigma/alpha = (A + t (B - A))^rho, A = sigma_min^(1/rho), B likewise.

      logsnr = -2 rho log(A + t (B - A))

  Karras et al., arXiv:2206.00364 eq. 5: uniform t is their grid. Not clean at
  t = 0, where sigma/alpha = sigma_min.
  """

  sigma_min: float = 0.002
  sigma_max: float = 80.0
  rho: float = 7.0

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
