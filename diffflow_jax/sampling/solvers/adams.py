"""Multistep solvers in ε̂ and in u: DEIS and Adams-Bashforth.

The polynomial through the last predictions of `multistep`, with the kernels

    noise  z_t = (alpha_t/alpha_s) z_s + alpha_t ∫ ε̂ d(sigma/alpha)
    flow   z_t = z_s + ∫ u dt                          on a path's own scale
"""

import numpy as np

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import (
  coefficients as co,
  coordinates,
  per_step,
)
from diffflow_jax.sampling.solvers.multistep import (
  half_slope,
  insert,
  leave_from,
  rows,
  start_inside,
  steps_of,
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


def _steps(levels, order, two_stage_start, orders, lower_order_final):
  """(step of each evaluation, the highest order of the step that follows)."""
  n = levels.logsnr.shape[0] - 1
  step = steps_of(n, two_stage_start)
  return step, per_step.orders(order, n, orders, lower_order_final)[step]


def deis(
  levels,
  order=3,
  two_stage_start=False,
  coordinate=None,
  *,
  orders=None,
  lower_order_final=False,
):
  """DEIS (tAB), arXiv:2204.13902 eq. 15, with ε̂ interpolated in any clock ψ.

      z_t = (alpha_t/alpha_s) z_s + alpha_t Σ_j C_j ε̂_{-j}
      C_j = ∫ L_j(ψ) d(sigma/alpha),   L_j the Lagrange polynomials in ψ

  Order 1, 2 or 3; order 3 shows with `two_stage_start` (N + 1 evaluations). The
  step from alpha = 0 keeps x̂, since ε̂ says nothing of x there.

  Equation (deis) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    order: 1, 2 or 3; two_stage_start: one evaluation inside the first step.
    coordinate: ψ, the time of a path of `coordinates`, as "flow"; None is
      log(sigma/alpha), the paper's choice, whose integrals are closed forms and
      whose step to sigma = 0 is of first order. With "sigma" it is the same as
      `adams_bashforth` in sigma, ρAB.
    orders, lower_order_final: as of `dpmpp_2m`.
  Returns:
    Tableau of N evaluations that keeps `order` predictions.
  Raises:
    ValueError: order is another, two_stage_start starts at alpha = 0, or orders
      that do not fit.
  """
  checks.order(order)
  limits = orders, lower_order_final
  return _noise_form(levels, order, two_stage_start, limits, coordinate)


def _noise_form(
  levels, order, two_stage_start, limits, coordinate=None, midpoint=False
):
  """z_t = (alpha_t/alpha_s) z_s + alpha_t ∫ ε̂ d(sigma/alpha), `deis`.

  Args:
    midpoint: the line's slope gets half the weight of ε̂, instead of its own.
  """
  xp = co.namespace(levels)
  points = start_inside(levels) if two_stage_start else levels
  at, t = co.steps(points)
  step, most = _steps(levels, order, two_stage_start, *limits)
  s = leave_from(at, two_stage_start)
  pure = s.alpha == 0.0
  keep = t.alpha / xp.where(pure, 1.0, s.alpha)
  a = xp.where(pure, t.sigma / xp.where(pure, s.sigma, 1.0), keep)
  b = xp.where(pure, t.alpha, t.sigma - s.sigma * keep)
  if coordinate is None:
    ell = lambda lv: 0.5 * lv.logsnr
    nodes, count = co.history(xp, ell(at), ell(s), ell(t), order, most)
    goal = t.sigma * co.moments(xp, -co.step_size(s, t), order)
  else:
    time = lambda lv: coordinates.time_of(lv, coordinate)
    # what is kept at alpha = 0 is x̂, and no node of ε̂
    usable = xp.where(at.alpha == 0.0, xp.inf, time(at))
    nodes, count = co.history(xp, usable, time(s), time(t), order, most)
    count = xp.where(pure, 1, count)
    inside = xp.where(pure, time(t), time(s))
    goal = t.alpha * _powers(xp, inside, time(t), coordinate, order)
  weights = (
    half_slope(xp, b, b, nodes, count)
    if midpoint
    else co.fit_weights(xp, nodes, xp.concatenate([b[None], goal[1:]]), count)
  )
  mix = rows(xp, order, a, list(weights), two_stage_start)
  kept_x = xp.where(at.alpha == 0.0, 1.0, 0.0)
  return co.tableau(levels, mix, (kept_x, 1.0 - kept_x), at, step)


def dpm_solver_2m(
  levels, two_stage_start=False, *, orders=None, lower_order_final=False
):
  """DPM-Solver of two steps, in ε̂, midpoint, arXiv:2206.00927; order 2.

      z_t = (alpha_t/alpha_s) z_s - sigma_t (e^h - 1) (ε̂_s + ½ D)
      D = (h/h_prev) (ε̂_s - ε̂_prev)

  "dpmsolver" of type "midpoint" in diffusers, and the authors' multistep solver
  of order 2 in ε̂. A step from alpha = 0, which keeps x̂, or to sigma = 0 is
  DDIM's.

  Equation (dpm_solver_2m) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    two_stage_start, orders, lower_order_final: as of `dpmpp_2m`.
  Returns:
    Tableau of N evaluations that keeps 2 predictions.
  Raises:
    ValueError: as `dpmpp_2m`.
  """
  limits = orders, lower_order_final
  return _noise_form(levels, 2, two_stage_start, limits, midpoint=True)


def dpm_solver_2m_heun(
  levels, two_stage_start=False, *, orders=None, lower_order_final=False
):
  """DPM-Solver of two steps, in ε̂, with the line's exact integral; order 2.

      z_t = (alpha_t/alpha_s) z_s
            - sigma_t [(e^h - 1) ε̂_s + ((e^h - 1)/h - 1) D]

  which is `deis` of order 2; D as of `dpm_solver_2m`. "heun" in diffusers,
  "taylor" in the authors' code.

  Equation (deis) of docs/math.

  Args:
    levels, two_stage_start, orders, lower_order_final: as of `dpm_solver_2m`.
  Returns:
    Tableau of N evaluations that keeps 2 predictions.
  Raises:
    ValueError: as `dpmpp_2m`.
  """
  limits = orders, lower_order_final
  return _noise_form(levels, 2, two_stage_start, limits)


def adams_bashforth(
  levels,
  order=2,
  coordinate="flow",
  two_stage_start=False,
  *,
  orders=None,
  lower_order_final=False,
):
  """Adams-Bashforth on dz = u dt with unequal steps; order 1, 2, 3 or 4.

      z_t = z_s + Δt Σ_j w_j u_{-j},   Σ_j w_j r_j^k = 1/(k+1),  k < order

  With coordinate "sigma" it is k-diffusion's LMS, of order 4 there, and DEIS's
  ρAB. The history counts in the path's time, so both exact ends are ordinary
  steps on "flow" and "angle".

  Equation (adams_bashforth) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    order: 1, 2, 3 or 4; coordinate: see `coordinates`.
    two_stage_start: one more evaluation, in the middle of the first step;
      without it orders 3 and 4 show as 2, and with it 4 as 3.
    orders, lower_order_final: as of `dpmpp_2m`.
  Returns:
    Tableau of N evaluations that keeps `order` predictions.
  Raises:
    ValueError: order is another, or orders that do not fit.
  """
  checks.order(order, 4)
  xp = co.namespace(levels)
  clock = coordinates.times(levels, coordinate)
  path = coordinates.at(coordinate, clock)
  points = clock
  if two_stage_start:
    points = insert(xp, clock, 0.5 * (clock[0] + clock[1]))
  at, t = points[:-1], points[1:]
  s = xp.concatenate([at[:1], at[:1], at[2:]]) if two_stage_start else at
  step, most = _steps(levels, order, two_stage_start, orders, lower_order_final)
  nodes, count = co.history(xp, at, s, t, order, most)
  goal = (t - s) / xp.arange(1.0, order + 1.0)[:, None]
  weights = co.fit_weights(xp, nodes, goal, count)
  mix = rows(xp, order, xp.ones_like(at), list(weights), two_stage_start)
  mix = coordinates.on_path(levels, path, mix)
  where = coordinates.at(coordinate, at)
  return co.tableau(levels, mix, (where.dalpha, where.dsigma), where, step)
