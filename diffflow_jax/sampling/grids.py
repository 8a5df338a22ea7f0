"""Grids: the N + 1 levels from noise to data at which a solver stops.

A grid is a Level whose fields have shape (N+1,), logsnr increasing. Concrete
grids are made in float64 on the host, whatever the default dtype; grids of
traced values are traced, and differentiable. The ends are what is asked for:
t = 1 of `Flow` is alpha = 0, t = 0 is sigma = 0, exactly.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import host, levels as levels_lib
from diffflow_jax.process.schedules import Flow
from diffflow_jax.sampling import checks
from diffflow_jax.sampling.checks import is_traced


def on_host(fn, *args):
  """fn(*args) as float64 NumPy arrays, or traced where an argument is."""
  return fn(*args) if is_traced(args) else host.evaluate64(fn, *args)


def from_t(schedule, scale, t):
  """The levels of a schedule at the times t, (N+1,), decreasing."""
  return checks.grid(_at(schedule, scale, checks.in_line(t)))


def _at(schedule, scale, t):
  """The levels at the times t, each of them in [0, 1]."""
  # float32's rounding of a schedule's own ends is let through
  checks.each("t", t, "in [0, 1]", lambda t: abs(t - 0.5) <= 0.5 + 1e-6)
  return on_host(lambda s, t: levels_lib.level(s, scale, t), schedule, t)


def from_logsnr(logsnr, scale=levels_lib.vp):
  """A grid at exactly these logsnr, (N+1,), increasing; ±inf are the ends."""
  return checks.grid(
    on_host(lambda l: levels_lib.at_logsnr(scale, l), checks.in_line(logsnr))
  )


def to_data(levels, scale=levels_lib.vp):
  """A grid at these levels, (N,), and a last step to the data, sigma = 0.

  Args:
    levels: logsnr, or a grid on that scale.
  """
  if not hasattr(levels, "logsnr"):
    xp = jnp if is_traced(levels) else np
    return from_logsnr(xp.append(xp.asarray(levels), xp.inf), scale)
  checks.on_scale(levels, scale)
  xp = jnp if is_traced(levels) else np
  clean = on_host(lambda l: levels_lib.at_logsnr(scale, l), np.inf)
  join = lambda field: xp.append(getattr(levels, field), getattr(clean, field))
  return checks.grid(
    levels_lib.Level(join("logsnr"), join("alpha"), join("sigma"))
  )


def uniform_t(
  schedule, scale, num_steps, t_start=1.0, t_end=0.0, to_zero=False
):
  """num_steps equal steps in the schedule's time: t_i = t_start … t_end.

  With to_zero N times from t_start to t_end, and then the data.

  Equation (time_grid) of docs/math.
  """
  r = _fractions(num_steps, to_zero)
  t = t_start * (1.0 - r) + t_end * r
  return _in_time(schedule, scale, t, to_zero)


def uniform_logsnr(
  logsnr_start, logsnr_end, num_steps, scale=levels_lib.vp, to_zero=False
):
  """num_steps equal steps in logsnr between two finite levels.

  With to_zero N levels between them, and then the data.

  Raises:
    ValueError: an end is a schedule, or no finite number.
  """
  if hasattr(logsnr_start, "logsnr"):
    raise ValueError(
      "uniform_logsnr goes from one logsnr to another, as in uniform_logsnr("
      "-8.0, 8.0, 20): along a schedule goes uniform_t, not from "
      f"{logsnr_start!r:.60}"
    )
  finite = "finite (uniform_t starts at pure noise, to_zero=True ends at data)"
  ends = dict(logsnr_start=logsnr_start, logsnr_end=logsnr_end)
  for name, value in ends.items():
    checks.number(name, value, finite, np.isfinite)
  r = _fractions(num_steps, to_zero)
  logsnr = logsnr_start * (1.0 - r) + logsnr_end * r
  return (to_data if to_zero else from_logsnr)(logsnr, scale)


def quadratic_t(
  schedule, scale, num_steps, t_start=1.0, t_end=0.0, to_zero=False
):
  """Steps that shorten towards the data: t_i = t_end + (…)(1 - i/N)².

  arXiv:2010.02502 app. D.2, on any schedule. to_zero is as of `uniform_t`.

  Equation (time_grid) of docs/math.
  """
  r = (1.0 - _fractions(num_steps, to_zero)) ** 2
  t = t_start * r + t_end * (1.0 - r)
  return _in_time(schedule, scale, t, to_zero)


def _fractions(num_steps, to_zero):
  """0 … 1 in the grid's own coordinate; a last step to the data is apart."""
  checks.integer("num_steps", num_steps, 1)
  return np.linspace(0.0, 1.0, num_steps if to_zero else num_steps + 1)


def _in_time(schedule, scale, t, to_zero):
  if not to_zero:
    return from_t(schedule, scale, t)
  if not is_traced(t) and t[-1] == 0.0:
    raise ValueError(
      "to_zero adds a step to the data after t_end: t_end must be > 0, not 0"
    )
  return to_data(_at(schedule, scale, t), scale)


def shifted_flow(
  num_steps, shift=3.0, scale=levels_lib.linear, power=1.0, stretch=1.0
):
  """Flow time t = k r/(1 + (k-1) r), r = 1 - i/N, arXiv:2403.03206 eq. 23.

  k = 1 is uniform flow time; k > 1 takes more steps at high noise. Not the
  paper's: r is taken to a power first, so that p > 1 takes more steps at low
  noise, and a stretch of every log-SNR by s > 1 takes more at both ends,

      t/(1 - t) = k (r/(1 - r))^s,   r = (1 - i/N)^p

  Equation (shifted_grid) of docs/math.

  Raises:
    ValueError: num_steps < 1, or another is not in (0, inf).
  """
  checks.integer("num_steps", num_steps, 1)
  for name, value in dict(shift=shift, power=power, stretch=stretch).items():
    checks.number(name, value, "> 0", lambda k: 0 < k < np.inf)
  r = np.linspace(1.0, 0.0, num_steps + 1) ** power
  noise, clean = shift * r**stretch, (1.0 - r) ** stretch
  return from_t(Flow(), scale, noise / (noise + clean))


def karras(
  num_steps,
  sigma_min=0.002,
  sigma_max=80.0,
  rho=7.0,
  scale=levels_lib.ve,
  to_zero=True,
):
  """EDM's grid, arXiv:2206.00364 eq. 5: sigma/alpha uniform in its 1/rho power.

  N numbers from sigma_max to sigma_min and then 0, so the last step goes from
  sigma_min to the data; with to_zero=False N + 1 numbers that end at sigma_min.

  Equation (karras_grid) of docs/math.
  """
  checks.integer("num_steps", num_steps, 1)
  for name, value in (
    ("rho", rho),
    ("sigma_min", sigma_min),
    ("sigma_max", sigma_max),
  ):
    checks.number(name, value, "> 0", lambda v: 0 < v < np.inf)
  xp = jnp if is_traced((sigma_min, sigma_max, rho)) else np
  r = _fractions(num_steps, to_zero)
  # (sigma/sigma_max)^(1/rho) - 1 = r (…): no digits cancel, however large rho
  with np.errstate(over="ignore"):
    last = xp.expm1(xp.log(sigma_min / sigma_max) / rho)
  inside = xp.where((0.0 < r) & (r < 1.0), r, 0.0)
  sigma = sigma_max * xp.exp(rho * xp.log1p(inside * last))
  sigma = xp.where(r == 1.0, sigma_min, sigma)
  if to_zero:
    sigma = xp.concatenate([sigma, xp.zeros(1)])
  return from_sigma(sigma, scale)


def from_sigma(sigma, scale=levels_lib.ve):
  """A grid at exactly these sigma/alpha, (N+1,), decreasing; 0 is the data."""
  sigma = checks.in_line(sigma)
  checks.each("sigma", sigma, ">= 0", lambda s: s >= 0)
  xp = jnp if is_traced(sigma) else np
  positive = sigma > 0
  log_sigma = xp.log(xp.where(positive, sigma, 1.0))
  logsnr = xp.where(positive, -2.0 * log_sigma, xp.inf)
  pair = on_host(lambda s: scale(jnp.ones_like(s), s), sigma)
  return checks.grid(levels_lib.Level(logsnr, *pair))


def table_rows(
  logsnr, num_steps, spacing="trailing", scale=levels_lib.vp, to_zero=True
):
  """A grid from a discrete table, its rows not rounded to integers.

      leading    T/N i          (row 0 is used, the noisiest is not)
      trailing   T - 1 - T/N i  (the noisiest is used; what zero SNR needs)
      linspace   from T - 1 to 0, both used

  for i = 0 … N-1 (arXiv:2305.08891 table 2, counted from row 0). Between rows
  the logsnr is interpolated. Then the data, or with to_zero=False the last
  row's own level: the N numbers then make N - 1 steps.

  Equation (rows) of docs/math.

  Args:
    logsnr: (T,) of the table, row 0 the cleanest, decreasing; or the schedule
      that it made.
  """
  logsnr = np.asarray(getattr(logsnr, "rows", logsnr), np.float64)
  rows = spaced_rows(len(logsnr), num_steps, spacing)
  levels = np.interp(rows, np.arange(len(logsnr)), logsnr)
  return (to_data if to_zero else from_logsnr)(levels, scale)


def spaced_rows(num_rows, num_steps, spacing):
  """The rows of `table_rows`, (num_steps,) from the noisiest, not rounded."""
  checks.integer("num_steps", num_steps, 1)
  if num_steps > num_rows:
    raise ValueError(
      f"num_steps must be at most the {num_rows} rows of the table, "
      f"not {num_steps}"
    )
  last, stride = num_rows - 1, num_rows / num_steps
  i = np.arange(num_steps)
  rows = {
    "leading": stride * i[::-1],
    "trailing": last - stride * i,
    "linspace": np.linspace(last, 0.0, num_steps),
  }
  if spacing not in rows:
    raise ValueError(f"spacing must be one of {sorted(rows)}, not {spacing!r}")
  return rows[spacing]


def reverse(grid):
  """The grid from data to noise, for encoding: solvers take it as it is."""
  return jax.tree.map(lambda leaf: leaf[::-1], grid)
