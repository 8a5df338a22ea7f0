"""Levels: a noise level on a scale, with the speed at which it changes.

    z = alpha x + sigma eps        logsnr = log(alpha²/sigma²)

A scale picks one representative of the ratio alpha : sigma. Scales are free:
c(t) (alpha, sigma) is the same level, and a state moves from one scale to
another by the factor `rescale` (Kingma & Gao, arXiv:2303.00848).
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import inputs, nodes, ranges
from diffflow_jax.process.names import with_numbers
from diffflow_jax.process.schedule import (
  FAR,
  LEAST,
  check_time,
  lifted,
  unit_pair,
)


@struct.dataclass
class Level:
  """A noise level, or arrays of them.

  Equation (level) of docs/math.

  Attributes:
    logsnr: log(alpha²/sigma²); +inf is data and -inf is pure noise.
    alpha, sigma: coefficients of x and eps, same shape as logsnr.
    dalpha, dsigma: d/dt of them along a schedule; None where no clock is known
      (only the flow velocity u needs one).
    to: the log-SNR of the level that a flow map goes to from here, same shape;
      None is here itself, an ordinary denoiser's prediction, and all that other
      predictors know.
  """

  logsnr: jax.Array
  alpha: jax.Array
  sigma: jax.Array
  dalpha: jax.Array | None = None
  dsigma: jax.Array | None = None
  to: jax.Array | None = None

  def __getitem__(self, index):
    """The levels at an index or slice, for a grid of levels."""
    return jax.tree.map(lambda leaf: leaf[index], self)


def from_pair(alpha, sigma):
  """The Level of coefficients: logsnr = 2 log(alpha/sigma), no clock.

  Equation (level) of docs/math.

  Args:
    alpha, sigma: any shape, the same or one that broadcasts; either may be 0.
  Raises:
    ValueError: a concrete one is negative, not finite, or both are 0.
  """
  # in float64 where they are plain numbers: a table is made of them
  xp = jnp if any(isinstance(c, jax.Array) for c in (alpha, sigma)) else np
  alpha, sigma = xp.broadcast_arrays(
    *(
      xp.asarray(c, xp.result_type(float, xp.asarray(c)))
      for c in (alpha, sigma)
    )
  )
  if nodes.concrete(alpha, sigma):
    a, s = np.asarray(alpha), np.asarray(sigma)
    if not np.all(np.isfinite(a) & np.isfinite(s) & (a >= 0) & (s >= 0)):
      raise ValueError(
        f"alpha and sigma must be finite and >= 0, not {alpha} and {sigma}"
      )
    if np.any((a == 0) & (s == 0)):
      raise ValueError("alpha and sigma are both 0, which is no noise level")
  with np.errstate(divide="ignore"):
    logsnr = xp.asarray(2.0 * (xp.log(alpha) - xp.log(sigma)))
  return Level(logsnr, alpha, sigma)


def check(lv, slack=1e-3):
  """Returns a Level, or says that its logsnr is not that of alpha and sigma.

  What is traced passes; beyond |logsnr| = 60 all levels are one.

  Raises:
    ValueError: they contradict each other, with the remedy.
  """
  three = lv.logsnr, lv.alpha, lv.sigma
  if not nodes.concrete(*three):
    return lv
  logsnr, alpha, sigma = (np.asarray(c, np.float64) for c in three)
  with np.errstate(divide="ignore", invalid="ignore"):
    told = np.clip(2.0 * (np.log(alpha) - np.log(sigma)), -FAR, FAR)
    apart = np.abs(np.clip(logsnr, -FAR, FAR) - told)
  # what float32 leaves of a level: the digits of its logsnr
  wrong = apart > slack * (1.0 + np.minimum(np.abs(logsnr), FAR))
  if np.any(wrong):
    i = np.argmax(wrong)
    at = lambda c: np.broadcast_to(c, wrong.shape).flat[i]
    raise ValueError(
      f"a Level has logsnr = {at(logsnr):g}, but alpha = {at(alpha):g} and "
      f"sigma = {at(sigma):g} are logsnr {at(told):g}: "
      "levels.from_pair(alpha, sigma) makes one that fits"
    )
  return lv


def vp(a, s):
  """Variance preserving: alpha² + sigma² = 1 (DDPM, VDM).

  Equation (scales) of docs/math.
  """
  norm = jnp.sqrt(a * a + s * s)
  return a / norm, s / norm


def ve(a, s):
  """Variance exploding: alpha = 1, sigma is EDM's noise level. No alpha = 0.

  Equation (scales) of docs/math.
  """
  return jnp.ones_like(a), s / a


def linear(a, s):
  """alpha + sigma = 1: flow matching, rectified flow.

  Equation (scales) of docs/math.
  """
  norm = a + s
  return a / norm, s / norm


def sub_vp(a, s):
  """alpha² + sigma = 1: the sub-VP SDE (arXiv:2011.13456 eq. 29).

  Equation (scales) of docs/math.
  """
  norm = 0.5 * (s + jnp.sqrt(s * s + 4.0 * a * a))
  return a / norm, s / norm


@ranges.node
class CondOT:
  """(1 - sigma_min) alpha + sigma = 1: alpha = 1 - t on `Flow(sigma_min)`.

  Lipman et al., arXiv:2210.02747 eq. 20; CondOT(0) is linear.

  Equation (scales) of docs/math.
  """

  sigma_min: Any = 1e-4
  _allowed = {"sigma_min": "in [0, 1)"}

  def __call__(self, a, s):
    norm = (1.0 - self.sigma_min) * a + s
    return a / norm, s / norm


@ranges.node
class Unit:
  """alpha² sigma_data² + sigma² = 1: unit variance if Var x = sigma_data².

  A network on this scale sees EDM's c_in y (Karras et al., arXiv:2206.00364
  Table 1): preconditioning the input is choosing this scale. Unit(1) is vp.

  Equation (scales) of docs/math.
  """

  sigma_data: Any = 0.5
  _allowed = {"sigma_data": "> 0"}

  def __call__(self, a, s):
    norm = jnp.sqrt((a * self.sigma_data) ** 2 + s * s)
    return a / norm, s / norm


def level(schedule, scale, t):
  """The Level at time t: alpha, sigma and their d/dt by one jvp.

  Equation (level) of docs/math.

  Args:
    schedule: has `pair(t)`; scale: (a, s) -> (alpha, sigma).
    t: times in [0, 1], any shape; all fields of the Level have this shape.
  Raises:
    TypeError: schedule or scale is none.
    ValueError: a concrete t is outside [0, 1], or the schedule's [0, last].
  """
  inputs.check_clock(schedule, scale)
  t = jnp.asarray(t, jnp.result_type(float, t))
  check_time(t, getattr(schedule, "last", 1.0))
  pair, speed = jax.jvp(schedule.pair, (t,), (jnp.ones_like(t),))
  alpha, sigma = scale(*pair)
  # where a root is 0 and its slope capped, their product is in what follows
  near = tuple(map(lifted, pair, speed))
  (alpha_near, sigma_near), (dalpha, dsigma) = jax.jvp(scale, near, speed)
  # and stays so for whoever lifts alpha or sigma in their turn
  kept = lambda c, near, dc: jnp.where(
    lifted(c, dc) == c, dc, near / LEAST * dc
  )
  return Level(
    schedule.logsnr(t),
    alpha,
    sigma,
    kept(alpha, alpha_near, dalpha),
    kept(sigma, sigma_near, dsigma),
  )


def at_logsnr(scale, logsnr, schedule=None):
  """The Level at a logsnr; with a schedule also its d/dt at that level.

  On the unit circle (a, s) = (cos phi, sin phi), so d/dt is dphi/dt (-s, a):
  the digits of both ends come from logsnr, since t near 1 has lost those of a.

  Equation (level) of docs/math.
  """
  inputs.check_scale(scale)
  logsnr = jnp.asarray(logsnr, jnp.result_type(float, logsnr))
  a, s = unit_pair(logsnr)
  if schedule is None:
    return Level(logsnr, *scale(a, s))
  # a velocity that a float32 cannot hold (log-normal tails) is kept finite
  speed = jnp.exp(jnp.minimum(schedule.log_speed(logsnr), 60.0))
  (alpha, sigma), (dalpha, dsigma) = jax.jvp(
    scale, (a, s), (-speed * s, speed * a)
  )
  return Level(logsnr, alpha, sigma, dalpha, dsigma)


def lecture_level(schedule, scale, tau):
  """The Level at the lecture's time tau = 1 - t, its d/dt in d/dtau.

      alpha_lec(tau) = alpha(1 - tau),     u_lec = -u

  tau = 0 is noise and tau = 1 data: Lipman et al., arXiv:2210.02747, and most
  of flow matching. Targets made at this level are theirs, sign included.

  Equation (schedule) of docs/math.
  """
  lv = level(schedule, scale, 1.0 - jnp.asarray(tau))
  return lv.replace(dalpha=-lv.dalpha, dsigma=-lv.dsigma)


def rescale(source, wanted):
  """c with z_wanted = c z_source, for one level on two scales.

  c = alpha_w/alpha_s = sigma_w/sigma_s, taken from the norms: finite where
  alpha or sigma is 0, and sensible where the two levels differ slightly.

  Equation (rescale) of docs/math.
  """
  return jnp.hypot(wanted.alpha, wanted.sigma) / jnp.hypot(
    source.alpha, source.sigma
  )


def bcast(c, z):
  """c, one number or one per sample, shaped to multiply a batch z."""
  c = jnp.asarray(c)
  return c.reshape(c.shape + (1,) * (jnp.ndim(z) - c.ndim)) if c.ndim else c


def add_noise(x, eps, lv):
  """z = alpha x + sigma eps (Ho et al., arXiv:2006.11239 eq. 4).

  Equation (level) of docs/math.
  """
  return bcast(lv.alpha, x) * x + bcast(lv.sigma, x) * eps


SCALES = {
  "vp": vp,
  "ve": ve,
  "linear": linear,
  "sub_vp": sub_vp,
  "cond_ot": CondOT(),
  "unit": Unit(),
}


def make(name, **numbers):
  """The scale of a name: make("vp"), make("unit", sigma_data=0.7).

  Raises:
    ValueError: an unknown name, or a number that the scale does not have.
  """
  return with_numbers(SCALES, "scale", name, numbers)
