"""Coordinates: the clocks that Runge-Kutta and Adams-Bashforth step in.

On a schedule and a scale, dz = u dt with u = dalpha x̂ + dsigma ε̂. So "Euler in
sigma" or "Heun on the angle" is the plain method on one path (schedule, scale):

    "flow"    alpha = 1 - t, sigma = t        u = ε̂ - x̂   finite at both ends
    "angle"   cos(πt/2), sin(πt/2)            u ~ v̂       finite at both ends
    "sigma"   alpha = 1, sigma = t            u = ε̂       no alpha = 0
    (schedule, scale), any of ours            dz = u dt of that path

A method moves the state to its path's scale in its first row and back to the
grid's in its last one, so the grid's own scale does not matter.
"""

import jax
import jax.numpy as jnp

from diffflow_jax.process import levels as levels_lib, schedules
from diffflow_jax.sampling import checks
from diffflow_jax.sampling.grids import on_host
from diffflow_jax.sampling.solvers import coefficients as co


@schedules.schedule
class _Sigma:
  """alpha : sigma = 1 : t with t in [0, inf), the clock of EDM."""

  last = float("inf")

  def pair(self, t):
    t = jnp.asarray(t)
    return jnp.ones_like(t, jnp.result_type(float, t)), t

  def t(self, logsnr):
    return jnp.exp(-0.5 * jnp.asarray(logsnr))


COORDINATES = {
  "flow": (schedules.Flow(), levels_lib.linear),
  "angle": (schedules.Cosine(), levels_lib.vp),
  "sigma": (_Sigma(), levels_lib.ve),
}


def resolve(coordinate):
  """(schedule, scale) of a coordinate's name, or the pair itself."""
  if isinstance(coordinate, tuple) and len(coordinate) == 2:
    return coordinate
  if not isinstance(coordinate, str) or coordinate not in COORDINATES:
    raise ValueError(
      f"coordinate must be one of {sorted(COORDINATES)} or a pair "
      f"(schedule, scale), not {coordinate!r}"
    )
  return COORDINATES[coordinate]


def times(levels, coordinate):
  """The path's time at every level of a grid, (N+1,), decreasing.

  Raises:
    ValueError: the levels are no grid, in either direction, or one of them is
      not on the path, as alpha = 0 in sigma.
  """
  return time_of(checks.grid(levels, backwards=True), coordinate)


def _time(schedule, logsnr):
  """schedule.t(logsnr), whose slope at an infinite logsnr is 0 and not NaN."""
  inside = jnp.isfinite(logsnr)
  ends = jax.lax.stop_gradient(schedule.t(logsnr))
  return jnp.where(inside, schedule.t(jnp.where(inside, logsnr, 0.0)), ends)


def time_of(levels, coordinate):
  """The path's time at any levels (N,)."""
  xp = co.namespace(levels)
  schedule, _ = resolve(coordinate)
  t = on_host(_time, schedule, levels.logsnr)
  if xp is not jnp and not xp.isfinite(t).all():
    raise ValueError(
      f"coordinate {coordinate!r} is infinite at alpha = 0: start the grid at "
      "a finite logsnr, or step in 'flow' or 'angle'"
    )
  return t


def at(coordinate, t):
  """The path's Level at times t, with its clock."""
  schedule, scale = resolve(coordinate)
  return on_host(lambda s, t: levels_lib.level(s, scale, t), schedule, t)


def gain(source, wanted):
  """The factor from one scale to another at one level, by the norms."""
  xp = co.namespace((source, wanted))
  return xp.hypot(wanted.alpha, wanted.sigma) / xp.hypot(
    source.alpha, source.sigma
  )


def on_path(levels, path, mix):
  """Rows that step on the path, entered and left on the grid's own scale.

  Args:
    levels: the grid; path: its levels on the path; mix: (rows, 2, K+3).
  """
  xp = co.namespace((levels, mix))
  first, last = gain(levels[0], path[0]), gain(path[-1], levels[-1])
  return xp.concatenate([mix[:1] * first, mix[1:-1], mix[-1:] * last])
