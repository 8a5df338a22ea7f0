"""Multistep solvers in ε̂ and in u: DEIS and Adams-Bashforth.

The polynomial through the last predictions of `multistep`, with the kernels

    noise  z_t = (alpha_t/alpha_s) z_s + alpha_t ∫ ε̂ d(sigma/alpha)
    flow   z_t = z_s + ∫ u dt                          on a path's own scale
"""

import numpy as np

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co, coordinates
from diffflow_jax.sampling.solvers.multistep import (
  insert,
  leave_from,
  rows,
  start_inside,
)

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
NODES, WEIGHTS = 0.5 * (NODES + 1.0), 0.5 * WEIGHTS  # on [0, 1]


def _powers(xp, s, t, coordinate, order):
  """∫ r^k d(sigma/alpha) over the steps s -> t of a path's time, (order, N).

  By Gauss-Legendre quadrature; 0 where the step leaves from alpha = 0.
  """
  dt = t - s
  lv = coordinates.at(coordinate, s + NODES[:, None] * dt)
  speed = (lv.dsigma * lv.alpha - lv.sigma * lv.dalpha) / lv.alpha**2
  powers = WEIGHTS * NODES ** np.arange(order)[:, None]
  return xp.asarray(powers @ (dt * speed))


def deis(levels, order=3, two_stage_start=False, coordinate=None):
  """DEIS (tAB), arXiv:2204.13902 eq. 15, with ε̂ interpolated in any clock ψ.

      z_t = (alpha_t/alpha_s) z_s + alpha_t Σ_j C_j ε̂_{-j}
      C_j = ∫ L_j(ψ) d(sigma/alpha),   L_j the Lagrange polynomials in ψ

  Order 1, 2 or 3; order 3 shows with `two_stage_start` (N + 1 evaluations). The
  step from alpha = 0 keeps x̂, since ε̂ says nothing of x there.

  Args:
    levels: grid from noise to data, (N+1,).
    order: 1, 2 or 3; two_stage_start: one evaluation inside the first step.
    coordinate: ψ, the time of a path of `coordinates`, as "flow"; None is
      log(sigma/alpha), the paper's choice, whose integrals are closed forms and
      whose step to sigma = 0 is of first order. With "sigma" it is the same as
      `adams_bashforth` in sigma, ρAB.
  Returns:
    Tableau of N evaluations that keeps `order` predictions.
  Raises:
    ValueError: order is another, or two_stage_start starts at alpha = 0.
  """
  checks.order(order)
  xp = co.namespace(levels)
  points = start_inside(levels) if two_stage_start else levels
  at, t = co.steps(points)
  s = leave_from(at, two_stage_start)
  pure = s.alpha == 0.0
  keep = t.alpha / xp.where(pure, 1.0, s.alpha)
  a = xp.where(pure, t.sigma / xp.where(pure, s.sigma, 1.0), keep)
  b = xp.where(pure, t.alpha, t.sigma - s.sigma * keep)
  if coordinate is None:
    ell = lambda lv: 0.5 * lv.logsnr
    nodes, count = co.history(xp, ell(at), ell(s), ell(t), order)
    goal = t.sigma * co.moments(xp, -co.step_size(s, t), order)
  else:
    time = lambda lv: coordinates.time_of(lv, coordinate)
    # what is kept at alpha = 0 is x̂, and no node of ε̂
    usable = xp.where(at.alpha == 0.0, xp.inf, time(at))
    nodes, count = co.history(xp, usable, time(s), time(t), order)
    count = xp.where(pure, 1, count)
    inside = xp.where(pure, time(t), time(s))
    goal = t.alpha * _powers(xp, inside, time(t), coordinate, order)
  weights = co.fit_weights(
    xp, nodes, xp.concatenate([b[None], goal[1:]]), count
  )
  mix = rows(xp, order, a, list(weights), two_stage_start)
  kept_x = xp.where(at.alpha == 0.0, 1.0, 0.0)
  return co.tableau(levels, mix, (kept_x, 1.0 - kept_x), at)


def adams_bashforth(levels, order=2, coordinate="flow", two_stage_start=False):
  """Adams-Bashforth on dz = u dt with unequal steps; order 1, 2 or 3.

  With coordinate "sigma" it is k-diffusion's LMS and DEIS's ρAB. The history
  counts in the path's time, so both exact ends are ordinary steps on "flow" and
  "angle".

  Args:
    levels: grid from noise to data, (N+1,).
    order: 1, 2 or 3; coordinate: see `coordinates`.
    two_stage_start: one more evaluation, in the middle of the first step;
      without it order 3 shows as 2.
  Returns:
    Tableau of N evaluations that keeps `order` predictions.
  Raises:
    ValueError: order is another.
  """
  checks.order(order)
  xp = co.namespace(levels)
  clock = coordinates.times(levels, coordinate)
  path = coordinates.at(coordinate, clock)
  points = clock
  if two_stage_start:
    points = insert(xp, clock, 0.5 * (clock[0] + clock[1]))
  at, t = points[:-1], points[1:]
  s = xp.concatenate([at[:1], at[:1], at[2:]]) if two_stage_start else at
  nodes, count = co.history(xp, at, s, t, order)
  goal = (t - s) / xp.arange(1.0, order + 1.0)[:, None]
  weights = co.fit_weights(xp, nodes, goal, count)
  mix = rows(xp, order, xp.ones_like(at), list(weights), two_stage_start)
  mix = coordinates.on_path(levels, path, mix)
  where = coordinates.at(coordinate, at)
  return co.tableau(levels, mix, (where.dalpha, where.dsigma), where)
