"""Flow maps: a prediction between two levels.

Φ takes a state at a level s along the probability-flow ODE to a cleaner level
t. It is DDIM's step with an *effective* prediction (X, E) in place of (x̂, ε̂):

    alpha_s X + sigma_s E = z        alpha_t X + sigma_t E = Φ             (1)
    Φ = (D_t/D_s) z - (Δ/D_s) y      y = a X + b E, (a, b) a row at s       (2)
    Δ = alpha_t sigma_s - alpha_s sigma_t,   D_s = alpha_s b - sigma_s a    (3)

so a network that predicts a row at s, and is told t, is a flow map, and every
conversion of `targets` holds. At t = s it is an ordinary denoiser. X and E do
not depend on scale or schedule; E - X is the mean velocity ū of flow time

    z_t = z_s - (s - t) ū     on alpha = 1 - t, sigma = t                   (4)

(MeanFlow, arXiv:2505.13447), bounded at both ends and for every pair of
levels, which is why losses are written in it. Two legs s -> m -> t are one:

    X_st = w X_sm + (1 - w) X_mt(Φ_sm)          each row has its own w      (5)

With l = log(alpha/sigma) = logsnr/2 and h = l_t - l_s >= 0, all of it is finite
at alpha_s = 0 and at sigma_t = 0.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import forward_mode, levels, nodes, targets
from diffflow_jax.process.levels import bcast
from diffflow_jax.process.schedule import clip_far


def _h(s, t):
  """½(t - s) of two logsnr: 0 where they are equal, infinite or not."""
  same = s == t
  return jnp.where(same, 0.0, 0.5 * (t - jnp.where(same, 0.0, s)))


def _rise(s, t):
  """1 - e^-h of two logsnr."""
  return -jnp.expm1(-_h(s, t))


def gap(s, t):
  """Δ = alpha_t sigma_s - alpha_s sigma_t of two Levels, without cancellation.

  alpha_t sigma_s (1 - e^-h); on the linear scale it is flow time's s - t.

  Equation (effective) of docs/math.
  """
  return t.alpha * s.sigma * _rise(s.logsnr, t.logsnr)


def effective(z, phi, s, t):
  """(X, E) of a map's value phi = Φ(z), eq. (1), where the levels differ.

      X = (sigma_s Φ - sigma_t z)/Δ,    E = (alpha_t z - alpha_s Φ)/Δ

  Equation (effective) of docs/math.

  Args:
    z: (batch, ...) at Level s; phi: like z, at Level t. Each is on the scale of
      its own level.
  """
  delta = gap(s, t)
  c = lambda coefficient: bcast(coefficient / delta, z)
  return (
    c(s.sigma) * phi - c(t.sigma) * z,
    c(t.alpha) * z - c(s.alpha) * phi,
  )


def step(target, y, z, s, t):
  """Φ of a prediction y = a X + b E, eq. (2): z itself where t is s.

  Equation (map_row) of docs/math.

  Args:
    target: the row Level -> (a, b); y, z: (batch, ...); s, t: Levels, fields ()
      or (batch,).
  Raises:
    ValueError: a known s is alpha = 0, where y says nothing of x.
  """
  check_start(target, s)
  a, b = target(s)
  d_s, d_t = s.alpha * b - s.sigma * a, t.alpha * b - t.sigma * a
  return bcast(d_t / d_s, z) * z - bcast(gap(s, t) / d_s, z) * y


def check_start(target, s):
  """Refuses a row that says nothing of x at a level where a map starts.

  Raises:
    ValueError: D_s = 0 at a known level of alpha = 0: eps and score.
  """
  if not nodes.concrete(s, target):
    return
  with jax.ensure_compile_time_eval():
    d_s = np.asarray(targets.determinant(target, s))
  silent = (np.asarray(s.alpha) == 0) & (d_s == 0)
  if silent.any():
    held = getattr(target, "held", target)
    name = getattr(held, "__name__", type(held).__name__)
    raise ValueError(
      f"a flow map of target {name} cannot start at alpha = 0 (logsnr = -inf), "
      "where it says nothing of x: use v, flow, u, F or x, or start at a "
      "finite logsnr"
    )


def weights(s, m, t):
  """w of eq. (5) for X, for E and for ū = E - X, of three logsnr s <= m <= t.

      w_E = (1 - e^-h_sm)/(1 - e^-h_st),  w_X = e^-h_mt w_E
      w_ū = (s - m)/(s - t) in flow time

  finite at both ends: w_X = 0 if t is data, which is consistency, and w_E = 1
  if s is pure noise. Where all three are equal it is 1, of any.

  Equation (semigroup) of docs/math. Equation (leg_weights) of docs/math.
  """
  whole = _rise(s, t)
  still = whole == 0.0
  w_eps = jnp.where(still, 1.0, _rise(s, m) / jnp.where(still, 1.0, whole))
  # alpha of the linear scale, where Δ is a difference of times
  alpha = lambda one: jnp.where(still, 1.0, jax.nn.sigmoid(0.5 * one))
  return w_eps * jnp.exp(-_h(m, t)), w_eps, w_eps * alpha(m) / alpha(t)


def compose(first, second, s, m, t):
  """(X, E) from s to t of two legs: `first` from s to m, then `second` to t.

  Equation (semigroup) of docs/math. Equation (leg_weights) of docs/math.

  Args:
    first, second: pairs (X, E); s, m, t: Levels.
  """
  w_x, w_eps, _ = weights(s.logsnr, m.logsnr, t.logsnr)
  mean = lambda w, a, b: bcast(w, a) * a + bcast(1.0 - w, a) * b
  return mean(w_x, first[0], second[0]), mean(w_eps, first[1], second[1])


def mean_row(schedule, t):
  """The row whose prediction is the mean of dz/dt from s to t, on any schedule.

      a = (alpha_s - alpha_t)/(s - t),   b = (sigma_s - sigma_t)/(s - t)

  and u where t is s. In flow time (-1, 1); elsewhere the row u of (X, E) is not
  the mean velocity.

  Equation (mean_row) of docs/math.

  Args:
    schedule: the clock; t: the destination, a Level.
  """

  def row(s):
    clock = schedule.t
    lapse = clock(s.logsnr) - clock(t.logsnr)
    still = lapse == 0.0
    mean = lambda one, other, speed: jnp.where(
      still, speed, (one - other) / jnp.where(still, 1.0, lapse)
    )
    speed = targets.u(s) if s.dalpha is not None else (jnp.nan, jnp.nan)
    return (
      mean(s.alpha, t.alpha, speed[0]),
      mean(s.sigma, t.sigma, speed[1]),
    )

  return row


# flow time: z on the linear scale, times s > t, all by logsnr


def flow_level(logsnr):
  """The Level of a logsnr on the linear scale: sigma is flow time."""
  return levels.at_logsnr(levels.linear, logsnr)


def lapse(s, t):
  """s - t in flow time of two logsnr, to all its digits.

  Equation (mean_velocity) of docs/math.
  """
  return gap(flow_level(s), flow_level(t))


def flow_step(velocity, z, s, t):
  """z_t = z_s - (s - t) ū on the linear scale: eq. (4).

  Equation (mean_velocity) of docs/math.
  """
  return z - bcast(lapse(s, t), z) * velocity


def _speed(logsnr):
  """dlogsnr/dt in flow time: -2/(t (1 - t))."""
  lv = flow_level(logsnr)
  return -2.0 / (lv.alpha * lv.sigma)


def eulerian(velocity, z, s, t, u):
  """ū and (s - t) dū/ds along z' = u, the destination held fixed.

      u(z, s) = ū + (s - t) dū/ds,   dū/ds = (∂_z ū) u + ∂_s ū

  MeanFlow's identity (arXiv:2505.13447), by one jvp with the tangents
  (u, 1, 0). An infinite s is taken at |logsnr| = 60.

  Equation (meanflow) of docs/math.

  Args:
    velocity: (z, s, t) -> ū, of logsnr (batch,); z on the linear scale.
  """
  s = clip_far(s)
  one = lambda z, s: velocity(z, s, t)
  u_bar, slope = forward_mode.jvp(one, (z, s), (u.astype(z.dtype), _speed(s)))
  return u_bar, bcast(lapse(s, t), z) * slope


def lagrangian(velocity, z, s, t):
  """ū and (s - t) dū/dt, z and its level held fixed.

      u(Φ, t) = ū - (s - t) dū/dt = dΦ/dt

  of the point of arrival: arXiv:2406.07507, in flow time. An infinite t is
  taken at |logsnr| = 60.

  Equation (lagrangian) of docs/math.
  """
  t = clip_far(t)
  one = lambda t: velocity(z, s, t)
  u_bar, slope = forward_mode.jvp(one, (t,), (_speed(t),))
  return u_bar, bcast(lapse(s, t), z) * slope
