"""The contract of a schedule, and what completes and checks one.

A noise level is the ratio alpha : sigma; logsnr = log(alpha²/sigma²) is its
coordinate. A schedule says which level belongs to which time in [0, 1]:

    pair(t)            any (a, s) with a : s = alpha : sigma, finite at the ends
    logsnr(t)          2 log(a/s), decreasing in t, ±inf at exact ends
    t(logsnr)          the inverse
    log_speed(logsnr)  log dphi/dt at a level, phi = atan(sigma/alpha):
                       |dlogsnr/dt| = 2 dphi/dt / (a s) with a² + s² = 1

One of the first two is enough; `schedule` derives the rest. Exact ends are
carried by pairs and not by logsnr: at t = 1 the flow schedule's pair is (0, 1),
with derivative (-1, 1).
"""

import dataclasses
import functools
import inspect
from typing import dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import host, ranges
from diffflow_jax.process.nodes import concrete

BOUNDS = (
  ("logsnr_min", "logsnr_max"),
  ("sigma_min", "sigma_max"),
  ("beta_min", "beta_max"),
  ("start", "end"),
)
# what a class may say of its fields in `_allowed`, see `ranges`
ABOVE_0 = "> 0"
FROM_0_BELOW_1 = "in [0, 1)"


FAR = 60.0  # |logsnr| that a float32 cannot tell from the limit


def clip_far(logsnr):
  """logsnr within ±60, so that its exponentials are finite numbers, not 0/0."""
  return jnp.clip(logsnr, -FAR, FAR)


def unit_pair(logsnr):
  """The (a, s) of a level with a² + s² = 1; (0, 1) and (1, 0) at ∓inf."""
  logsnr = jnp.asarray(logsnr)
  clean = logsnr >= 0.0
  half = jnp.exp(-0.5 * jnp.where(clean, logsnr, -logsnr))  # smaller/larger
  larger = 1.0 / jnp.sqrt(1.0 + half * half)
  smaller = half * larger
  return jnp.where(clean, larger, smaller), jnp.where(clean, smaller, larger)


def pair_logsnr(a, s):
  """log(a²/s²), as a difference of logs so that neither end overflows."""
  return 2.0 * (jnp.log(a) - jnp.log(s))


LEAST = 1e-15  # the root from which on the slope of `root` is that of LEAST


@jax.custom_jvp
def root(x):
  """√x whose slope at 0 is huge instead of infinite.

  For schedules with sigma ~ √t at the data end: their velocity is infinite
  there, and 0 · inf must not become NaN. The product is finite, d(√x)²/dt =
  2 √x d√x/dt: with `lifted` in the place of the root it is what it should be.
  """
  return jnp.sqrt(x)


@root.defjvp
def _root_jvp(primals, tangents):
  (x,), (dx,) = primals, tangents
  return root(x), dx * (0.5 / jnp.sqrt(jnp.maximum(x, LEAST**2)))


def lifted(c, dc):
  """c, or LEAST where it is 0 with the capped slope of a `root`."""
  return jnp.where((c == 0.0) & (jnp.abs(dc) > LEAST**-0.5), LEAST, c)


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


def _time_of(self, logsnr):
  logsnr = jnp.asarray(logsnr, jnp.result_type(float, logsnr))
  logsnr = clip_far(logsnr)
  return jnp.clip(self.t(logsnr), 0.0, 1.0), logsnr


def _log_speed_of_pair(self, logsnr):
  """log dphi/dt = log (a ds - s da)/(a² + s²), from the pair at t(logsnr)."""
  t, _ = _time_of(self, logsnr)
  (a, s), (da, ds) = jax.jvp(self.pair, (t,), (jnp.ones_like(t),))
  return jnp.log((a * ds - s * da) / (a * a + s * s))


def _log_speed_of_logsnr(self, logsnr):
  """log dphi/dt = log ½ a s |dlogsnr/dt|, a and s from logsnr itself."""
  t, logsnr = _time_of(self, logsnr)
  _, slope = jax.jvp(self.logsnr, (t,), (jnp.ones_like(t),))
  return log_product(logsnr) + jnp.log(-0.5 * slope)


def log_product(logsnr):
  """log(a s) of a level with a² + s² = 1."""
  return 0.5 * (jax.nn.log_sigmoid(logsnr) + jax.nn.log_sigmoid(-logsnr))


@dataclass_transform(frozen_default=True)
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

  Equation (schedule) of docs/math.
  """
  if not hasattr(cls, "logsnr") and not hasattr(cls, "pair"):
    raise TypeError(f"schedule {cls.__name__} needs logsnr(t) or pair(t)")
  if not hasattr(cls, "log_speed"):
    by_pair = hasattr(cls, "pair")
    cls.log_speed = _log_speed_of_pair if by_pair else _log_speed_of_logsnr
  if not hasattr(cls, "pair"):
    cls.pair = lambda self, t: unit_pair(self.logsnr(t))
  if not hasattr(cls, "logsnr"):
    cls.logsnr = lambda self, t: pair_logsnr(*self.pair(t))
  if not hasattr(cls, "t"):
    cls.t = _bisect
  if "base" in inspect.get_annotations(cls):
    cls.__post_init__ = lambda self: check_object("base", self.base)
  cls.logsnr, cls.pair = _in_time(cls.logsnr), _in_time(cls.pair)
  fields = inspect.get_annotations(cls)
  allowed = dict(getattr(cls, "_allowed", {}))
  for low, high in BOUNDS:
    if low in fields and high in fields:
      mine = allowed.get(low, "finite")
      allowed |= {low: [mine, f"< {high}"], high: allowed.get(high, "finite")}
  cls._allowed = allowed
  return ranges.node(cls)


def _in_time(method):
  @functools.wraps(method)
  def of_time(self, t):
    check_time(t, getattr(self, "last", 1.0))
    return method(self, t)

  return of_time


def check_time(t, last=1.0, slack=1e-6):
  """Refuses known times outside [0, last], by more than rounding, and NaN.

  Raises:
    ValueError: it says which.
  """
  if not concrete(t):
    return
  times = np.asarray(t)
  outside = ~((times >= -slack) & (times <= last + slack))
  if outside.any():
    raise ValueError(
      f"t must be in [0, {last:g}], from data to noise, not "
      f"{times[outside][0] if times.ndim else times:g}"
    )


def check_object(name, schedule):
  """Refuses what is no schedule: a number, a name, or the class of one.

  Raises:
    ValueError: it says which.
  """
  if isinstance(schedule, type) or not hasattr(schedule, "logsnr"):
    raise ValueError(
      f"{name} must be an object with logsnr(t), as Flow() is, not {schedule!r}"
    )


def check(schedule, num=1001):
  """Returns a schedule that can be trained with, or says what is wrong with it.

  For concrete values, where a user's choice is resolved: under jit, where they
  are not known, it passes.

  Raises:
    ValueError: no schedule at all, a number out of its range, inverted bounds,
      NaN, the wrong shape, logsnr not decreasing.
  """
  check_object("a schedule", schedule)
  if not concrete(schedule):
    return schedule
  if dataclasses.is_dataclass(schedule):
    ranges.check_fields(schedule)  # jax.tree.map may have made them
  _check_curve(schedule, num)
  return schedule


def _check_curve(schedule, num):
  name = type(schedule).__name__
  t = np.linspace(0.0, 1.0, num)
  logsnr = host.evaluate(lambda s, t: s.logsnr(t), schedule, t)
  if logsnr.shape != t.shape:
    raise ValueError(
      f"{name}: logsnr(t) must be elementwise, but t of shape {t.shape} gave "
      f"shape {logsnr.shape}"
    )
  wrong = np.isnan(logsnr)
  if wrong.any():
    raise ValueError(f"{name}: logsnr({t[wrong.argmax()]:g}) is NaN")
  stuck = ~(logsnr[1:] < logsnr[:-1])
  if stuck.any():
    i = int(stuck.argmax())
    raise ValueError(
      f"{name}: logsnr(t) must decrease from data (t = 0) to noise (t = 1), "
      f"but it is {logsnr[i]:g} at t = {t[i]:g} and {logsnr[i + 1]:g} at "
      f"t = {t[i + 1]:g}"
    )
