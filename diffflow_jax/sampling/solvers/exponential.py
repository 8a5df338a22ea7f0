"""Single-step exponential solvers: DPM-Solver++ 1, 2S and 3S.

In ell = logsnr/2 the probability-flow ODE solves to

    z_t = (sigma_t/sigma_s) z_s + sigma_t ∫ e^ell x̂ dell

(Lu et al., arXiv:2211.01095 eq. 8). These evaluate x̂ inside the step, at levels
that are taken on vp: predictions do not depend on the scale.
"""

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co


def _single(levels):
  """Which steps have an infinite h: one evaluation, DDIM. (N,) bool, static.

  Of a traced grid that is not known: every step keeps its evaluations, those
  inside an infinite one with weight 0.
  """
  s, t = co.steps(levels)
  if co.namespace(levels) is co.jnp:
    return co.np.zeros(s.logsnr.shape[0], bool)
  return ~co.np.isfinite(co.step_size(s, t))


def _staged(levels, stage_levels, stages, update):
  """The Tableau of steps with several evaluations of x̂.

  Args:
    stage_levels: Levels (N,) of the stages after the first.
    stages, update: (z weight, [x̂ weights, newest first]) of each, (N,).
  """
  xp = co.namespace(levels)
  s, t = co.steps(levels)
  k, single = len(stages) + 1, _single(levels)
  a, b = co.exact_step(s, t)
  held = co.columns(xp, k, anchor=1.0)
  full = [co.columns(xp, k, anchor=z, h=h) for z, h in (*stages, update)]
  short = co.columns(xp, k, anchor=a, h=[b])
  mix, where = [xp.asarray(co.identity_row(k))], []
  for i in range(single.shape[0]):
    where.append(s[i])
    if not single[i]:
      for row, lv in zip(full[:-1], stage_levels, strict=True):
        mix.append(xp.stack([held, row[i]]))
        where.append(lv[i])
    row = (short if single[i] else full[-1])[i]
    mix.append(xp.stack([row, row]))
  gather = lambda field: xp.stack([getattr(lv, field) for lv in where])
  at = co.Level(*(gather(f) for f in ("logsnr", "alpha", "sigma")))
  return co.tableau(levels, xp.stack(mix), co.X, at)


def dpmpp_2s(levels, r=0.5):
  """DPM-Solver++(2S), arXiv:2211.01095 Alg. 1; order 2, any scale.

      x̂_m at ell_s + r h, by DDIM;   z_t = A z_s + B [(1 - 1/2r) x̂_s + x̂_m/2r]

  A step from alpha = 0 or to sigma = 0 is DDIM's, with one evaluation.

  Args:
    levels: grid from noise to data, (N+1,).
    r: where the second evaluation is, in (0, 1].
  Returns:
    Tableau of 2 evaluations for every finite step, or every step of a traced
    grid; keeps 2 predictions.
  Raises:
    ValueError: r is outside (0, 1].
  """
  checks.number("r", r, "in (0, 1]", lambda r: 0 < r <= 1)
  s, t = co.steps(levels)
  a, b = co.exact_step(s, t)
  mid = co.between(s, co.step_size(s, t), r)
  a_m, b_m = co.exact_step(s, mid)
  w = 0.5 / r * co.namespace(levels).isfinite(co.step_size(s, t))
  return _staged(levels, [mid], [(a_m, [b_m])], (a, [b * w, b * (1.0 - w)]))


def dpmpp_3s(levels):
  """DPM-Solver++(3S), arXiv:2211.01095 app. B with r = 1/3, 2/3; order 3.

      x̂_1 at ell_s + h/3, by DDIM
      x̂_2 at ell_s + 2h/3, from DDIM + 2 alpha_2 m_1(2h/3) (x̂_1 - x̂_s)
      z_t = DDIM + (3/2) alpha_t m_1(h) (x̂_2 - x̂_s),   m_1(h) = 1 - (1-e^-h)/h

  A step from alpha = 0 or to sigma = 0 is DDIM's, with one evaluation.

  Args:
    levels: grid from noise to data, (N+1,).
  Returns:
    Tableau of 3 evaluations for every finite step, or every step of a traced
    grid; keeps 3 predictions.
  """
  xp = co.namespace(levels)
  s, t = co.steps(levels)
  h = co.step_size(s, t)
  finite = xp.isfinite(h)
  one, two = co.between(s, h, 1 / 3), co.between(s, h, 2 / 3)
  (a1, b1), (a2, b2), (a, b) = (co.exact_step(s, lv) for lv in (one, two, t))
  w2 = 2.0 * two.alpha * xp.where(finite, co.moments(xp, 2 / 3 * h, 2)[1], 0.0)
  w = 1.5 * t.alpha * xp.where(finite, co.moments(xp, h, 2)[1], 0.0)
  zero = xp.zeros_like(w)
  stages = [(a1, [b1]), (a2, [w2, b2 - w2])]
  return _staged(levels, [one, two], stages, (a, [w, zero, b - w]))
