"""Multistep solvers: one evaluation a step, and the memory of the last ones.

All of them put a polynomial in the step's clock r in [0, 1] through the kept
predictions at the nodes r_j <= 0 and integrate it with the step's own kernel:

    data   z_t = (sigma_t/sigma_s) z_s + alpha_t ∫ h e^{-h(1-r)} x̂ dr   r in ell
    noise  z_t = (alpha_t/alpha_s) z_s - sigma_t ∫ h e^{h(1-r)} ε̂ dr    r in ell
    flow   z_t = z_s + Δt ∫ u dr                              r in a path's time

(arXiv:2211.01095 eq. 8, arXiv:2204.13902 eq. 11.) The first is here, the others
are in `adams`. `coefficients.fit_weights` does that for every one; a solver is
its kernel's moments. The history is short
at first, so the order rises by one a step; the step after alpha = 0, and a step
to sigma = 0, are of first order. The first step's error then limits the global
order to 2: `two_stage_start` spends one more evaluation inside the first step,
which lets order 3 show. `orders` and `lower_order_final` hold it down by step
(`per_step.orders`).
"""

import numpy as np

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co, per_step


def insert(xp, array, value):
  """array with value between its first two entries."""
  return xp.concatenate([array[:1], xp.stack([value]), array[1:]])


def start_inside(levels):
  """The grid with the middle of its first step put in, for a second stage."""
  xp = co.namespace(levels)
  s, t = (lv[0] for lv in co.steps(levels))
  h = co.step_size(s, t)
  if xp is np and not np.isfinite(h):
    raise ValueError(
      "two_stage_start needs a finite first step: the grid starts at alpha = 0"
    )
  mid = co.between(s, h, 0.5)
  put = lambda field: insert(xp, getattr(levels, field), getattr(mid, field))
  return co.Level(*(put(f) for f in ("logsnr", "alpha", "sigma")))


def leave_from(s, two_stage_start):
  """The level that each step leaves from: the grid's first one twice, then on.

  The stage inside the first step is an evaluation like any other, but the state
  does not move on from it.
  """
  if not two_stage_start:
    return s
  xp = co.namespace(s)
  back = lambda a: xp.concatenate([a[:1], a[:1], a[2:]])
  return co.Level(back(s.logsnr), back(s.alpha), back(s.sigma))


def steps_of(num_steps, two_stage_start):
  """The step of each evaluation: two in the first one, where it has a stage."""
  checks.flag("two_stage_start", two_stage_start)
  more = np.where(two_stage_start & (np.arange(num_steps) == 0), 2, 1)
  return np.repeat(np.arange(num_steps), more)


def rows(xp, num_kept, z, h, two_stage_start):
  """The rows; with a stage in the first step the anchor holds its start."""
  mix = co.one_evaluation_mix(xp, num_kept, z, h)
  if not two_stage_start:
    return mix
  inside = xp.stack([xp.asarray(co.identity_row(num_kept))[0], mix[1, 1]])
  from_anchor = xp.concatenate(
    [mix[2, :, 1:2], mix[2, :, :1], mix[2, :, 2:]], 1
  )
  return xp.concatenate(
    [mix[:1], inside[None], from_anchor[None], mix[3:]], axis=0
  )


def _exponential(levels, order, how, adjust=None):
  """A data-form multistep solver; `adjust` may replace the weights.

  Args:
    how: two_stage_start, orders, lower_order_final, as of every one of them.
  """
  two_stage_start, orders, lower_order_final = how
  xp = co.namespace(levels)
  points = start_inside(levels) if two_stage_start else levels
  at, t = co.steps(points)
  n = levels.logsnr.shape[0] - 1
  step = steps_of(n, two_stage_start)
  most = per_step.orders(order, n, orders, lower_order_final)[step]
  s = leave_from(at, two_stage_start)
  a, b = co.exact_step(s, t)
  h = co.step_size(s, t)
  ell = lambda lv: 0.5 * lv.logsnr
  nodes, count = co.history(xp, ell(at), ell(s), ell(t), order, most)
  goal = xp.concatenate([b[None], t.alpha * co.moments(xp, h, order)[1:]])
  weights = co.fit_weights(xp, nodes, goal, count)
  if adjust is not None:
    weights = adjust(xp, weights, nodes, count, goal)
  mix = rows(xp, order, a, list(weights), two_stage_start)
  return co.tableau(levels, mix, co.X, at, step)


def half_slope(xp, b, whole, nodes, count):
  """Weights of b x̂(0) + ½ whole dx̂/dr on the line through the last two.

  x̂(0) is x̂_0 itself but in a first step with a stage in it, where r_0 > 0;
  where there are no two it is b x̂_0 alone.
  """
  two = count > 1
  gap = xp.where(two, nodes[0] - nodes[1], 1.0)
  step = xp.where(two, 0.5 * whole - b * nodes[0], 0.0) / gap
  return xp.stack([b + step, -step])


def dpmpp_2m(
  levels, two_stage_start=False, *, orders=None, lower_order_final=False
):
  """DPM-Solver++(2M), arXiv:2211.01095 Alg. 2, midpoint; order 2, any scale.

      z_t = A z_s + B (x̂_s + ½ D),   D = (h/h_prev) (x̂_s - x̂_prev)
      A = sigma_t/sigma_s,  B = alpha_t (1 - e^-h)

  The first step, the step after alpha = 0 and a step to sigma = 0 are DDIM's.
  Equal to UniP-2 with B = expm1(-h).

  Equation (dpmpp_2m) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    two_stage_start: one more evaluation, inside a finite first step.
    orders: the most of each step, N integers; lower_order_final: 1 in the last
      step, 2 in the one before it, and so on.
  Returns:
    Tableau of N evaluations that keeps 2 predictions.
  Raises:
    ValueError: two_stage_start on a grid that starts at alpha = 0, or orders
      that do not fit.
  """

  def adjust(xp, _, nodes, count, goal):
    return half_slope(xp, goal[0], goal[0], nodes, count)

  how = two_stage_start, orders, lower_order_final
  return _exponential(levels, 2, how, adjust)


def dpmpp_2m_heun(
  levels, two_stage_start=False, *, orders=None, lower_order_final=False
):
  """DPM-Solver++(2M) with the exact integral of the line, m_1(h); order 2.

  As `dpmpp_2m` with ½ B replaced by alpha_t (1 - (1 - e^-h)/h): the form that
  is exact for x̂ linear in ell.

  Equation (multistep) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    two_stage_start: one more evaluation, inside a finite first step.
    orders: the most of each step, N integers; lower_order_final: 1 in the last
      step, 2 in the one before it, and so on.
  Returns:
    Tableau of N evaluations that keeps 2 predictions.
  Raises:
    ValueError: two_stage_start on a grid that starts at alpha = 0, or orders
      that do not fit.
  """
  how = two_stage_start, orders, lower_order_final
  return _exponential(levels, 2, how)


def dpmpp_3m(
  levels, two_stage_start=False, *, orders=None, lower_order_final=False
):
  """DPM-Solver++(3M), arXiv:2211.01095, with the parabola's exact integral.

  Order 3 with `two_stage_start` (N + 1 evaluations), 2 with a first step of
  DDIM's; any scale. Equal to UniP-3 but in its second step, which is that of
  `dpmpp_2m_heun` here and of `dpmpp_2m` in `unip`. Many copies of this solver
  carry half of the second difference's weight: that one is `dpmpp_3m_half`.

  Equation (multistep) of docs/math. Equation (dpmpp_3m) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    two_stage_start, orders, lower_order_final: as of `dpmpp_2m`.
  Returns:
    Tableau of N evaluations that keeps 3 predictions.
  Raises:
    ValueError: as `dpmpp_2m`.
  """
  how = two_stage_start, orders, lower_order_final
  return _exponential(levels, 3, how)


def dpmpp_3m_half(
  levels, two_stage_start=False, *, orders=None, lower_order_final=False
):
  """DPM-Solver++(3M) as widely copied: order 2, for comparison with others.

  Its second difference D_2 is half of h² x̂'' but is weighted as if it were
  whole: z_t = DDIM + alpha_t φ₂ D_1 - alpha_t φ₃ D_2 where 2 φ₃ is due. The
  second step is that of `dpmpp_2m`, as in the authors' code and diffusers.

  Equation (dpmpp_3m) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    two_stage_start, orders, lower_order_final: as of `dpmpp_2m`.
  Returns:
    Tableau of N evaluations that keeps 3 predictions.
  """

  def adjust(xp, weights, nodes, count, goal):
    # m_2 = -2 φ₃, and D_2 is the divided difference x̂[0, r_1, r_2]
    whole = count > 2
    r1, r2 = (xp.where(whole, nodes[j], -1.0 * j) for j in (1, 2))
    second = [1.0 / (r1 * r2), 1.0 / (r1 * (r1 - r2)), 1.0 / (r2 * (r2 - r1))]
    half = xp.where(whole, 0.5 * goal[2], 0.0)
    two = half_slope(xp, goal[0], goal[0], nodes, count)
    two = xp.concatenate([two, xp.zeros_like(weights[2:])])
    return xp.where(count == 2, two, weights - half * xp.stack(second))

  how = two_stage_start, orders, lower_order_final
  return _exponential(levels, 3, how, adjust)
