"""Runge-Kutta methods on any coordinate.

    k_j = u(z_s + Δt Σ_{l<j} a_jl k_l, t_s + c_j Δt)
    z_t = z_s + Δt Σ_j b_j k_j

with Δt = t_t - t_s < 0 on the path of `coordinate`. A stage is one row of the
tableau: the anchor holds z_s, and the k_j are the kept predictions. Nothing is
evaluated at sigma = 0: `butcher` says how the step that arrives there is taken.
"""

import numpy as np

from diffflow_jax.sampling.solvers import (
  butcher as bu,
  coefficients as co,
  coordinates,
)


def stages(xp, rule, start, arrive, num_kept):
  """Rows and times of the stages of n steps.

  Args:
    rule: Butcher of s stages; start, arrive: (n,), times.
  Returns:
    (rows (n, s, 2, K+3), of which [i, j] follows evaluation j of step i; times
    (n, s) of the evaluations).
  """
  dt = arrive - start
  stay = co.columns(xp, num_kept, anchor=xp.ones_like(dt))
  rows = []
  for weights in (*rule.a[1:], rule.b):
    h = [dt * w for w in reversed(weights)]  # newest first
    row = co.columns(xp, num_kept, anchor=1.0, h=h)
    rows.append(xp.stack([stay, row], 1))
  rows[-1] = xp.stack([row, row], 1)
  times = [arrive if c == 1.0 else start + c * dt for c in rule.c]
  return xp.stack(rows, 1), xp.stack(times, 1)


def flat(xp, *blocks):
  """(rows, times, the step of each) of blocks of `stages`, in line."""
  rows = xp.concatenate([r.reshape(-1, *r.shape[2:]) for r, _ in blocks])
  times = xp.concatenate([t.reshape(-1) for _, t in blocks])
  sizes = np.concatenate([np.full(t.shape[0], t.shape[1]) for _, t in blocks])
  return rows, times, np.repeat(np.arange(len(sizes)), sizes)


def along(levels, butcher, last, coordinate):
  """The Tableau of a Butcher table; `last` takes the step to sigma = 0."""
  xp = co.namespace(levels)
  time = coordinates.times(levels, coordinate)
  num_kept = max(len(butcher.b), len(last.b))
  clean = levels.sigma[-1] == 0.0
  take = lambda rule, s: stages(xp, rule, time[:-1][s], time[1:][s], num_kept)
  if xp is np:
    ending = take(last if clean else butcher, slice(-1, None))
  else:  # it is not known where its last step arrives: all stages stay
    both = (
      take(bu.padded(rule, num_kept), slice(-1, None))
      for rule in (last, butcher)
    )
    ending = [xp.where(clean, *pair) for pair in zip(*both, strict=True)]
  mix, when, step = flat(xp, take(butcher, slice(-1)), ending)
  path = coordinates.at(coordinate, time)
  where = coordinates.at(coordinate, when)
  first = xp.asarray(co.identity_row(num_kept))[None]
  mix = coordinates.on_path(levels, path, xp.concatenate([first, mix]))
  return co.tableau(levels, mix, (where.dalpha, where.dsigma), where, step)


def runge_kutta(levels, a, b, c=None, coordinate="flow"):
  """Any explicit Runge-Kutta method by its Butcher table, on dz = u dt.

      runge_kutta(grid, [[], [1/2], [0, 3/4]], [2/9, 1/3, 4/9])

  Over the whole way its order is that of the table, at most 4 where a stage
  has c = 1 and the grid ends at sigma = 0 (see `butcher`).

  Equation (runge_kutta) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    a: a row for each stage; b: the weights; c: the rows' sums, if they are to
      be checked. coordinate: see `coordinates`.
  Returns:
    Tableau of s N evaluations for s stages, that keeps s predictions.
  Raises:
    ValueError: a, b, c are no explicit, consistent table.
  """
  rule = bu.table(a, b, c)
  return along(levels, rule, bu.last(rule), coordinate)


def euler(levels, coordinate="flow"):
  """Euler's method on dz = u dt; order 1.

  On "flow", "sigma" and "angle" it differs from DDIM on "angle" only: Euler in
  flow time and in sigma are DDIM (arXiv:2010.02502 eq. 13) exactly.

  Equation (runge_kutta) of docs/math. Equation (ddim) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); coordinate: see `coordinates`.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  """
  return along(levels, bu.EULER, bu.EULER, coordinate)


def heun(levels, coordinate="flow"):
  """Heun's method on dz = u dt; order 2.

      z* = z_s + Δt u_s,   z_t = z_s + ½ Δt (u_s + u*)

  A step that arrives at sigma = 0 is Ralston's, ¼ u_s + ¾ u(t_s + ⅔ Δt), of the
  same order: see `butcher`. In sigma it is Euler's, as EDM's Algorithm 1
  (arXiv:2206.00364) has it.

  Equation (runge_kutta) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
  Returns:
    Tableau of 2N evaluations that keeps 2 predictions; in sigma of 2N - 1, if
    sigma[-1] = 0 and the grid is not traced.
  """
  last = bu.EULER if coordinate == "sigma" else bu.RALSTON
  return along(levels, bu.HEUN, last, coordinate)


def midpoint(levels, coordinate="flow"):
  """The midpoint method, z_t = z_s + Δt u(z_s + ½ Δt u_s, t_s + ½ Δt); order 2.

  Equation (runge_kutta) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); both exact ends are fine.
  Returns:
    Tableau of 2N evaluations that keeps 2 predictions.
  """
  return along(levels, bu.MIDPOINT, bu.MIDPOINT, coordinate)


def ralston(levels, coordinate="flow"):
  """Ralston's method, the least error of two stages; order 2.

      z_t = z_s + Δt (¼ u_s + ¾ u(z_s + ⅔ Δt u_s, t_s + ⅔ Δt))

  Equation (runge_kutta) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); both exact ends are fine.
  Returns:
    Tableau of 2N evaluations that keeps 2 predictions.
  """
  return along(levels, bu.RALSTON, bu.RALSTON, coordinate)


def bogacki_shampine(levels, coordinate="flow"):
  """Bogacki and Shampine's method of three stages, c = 0, 1/2, 3/4; order 3.

      z_t = z_s + Δt (2 k_1 + 3 k_2 + 4 k_3)/9

  Equation (runge_kutta) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); both exact ends are fine.
  Returns:
    Tableau of 3N evaluations that keeps 3 predictions.
  """
  rule = bu.BOGACKI_SHAMPINE
  return along(levels, rule, rule, coordinate)


def rk4(levels, coordinate="flow"):
  """The classical Runge-Kutta method on dz = u dt; order 4.

      z_t = z_s + Δt (k_1 + 2 k_2 + 2 k_3 + k_4)/6,   c = 0, 1/2, 1/2, 1

  Also where it arrives at sigma = 0; that step evaluates inside: see `butcher`.

  Equation (runge_kutta) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
  Returns:
    Tableau of 4N evaluations that keeps 4 predictions.
  """
  return along(levels, bu.RK4, bu.last(bu.RK4), coordinate)


def rk38(levels, coordinate="flow"):
  """Kutta's 3/8 rule on dz = u dt; order 4, of less error than `rk4`.

      z_t = z_s + Δt (k_1 + 3 k_2 + 3 k_3 + k_4)/8,   c = 0, 1/3, 2/3, 1

  The step to sigma = 0 is that of `rk4`.

  Equation (runge_kutta) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
  Returns:
    Tableau of 4N evaluations that keeps 4 predictions.
  """
  return along(levels, bu.KUTTA_38, bu.last(bu.KUTTA_38), coordinate)
