"""Single-step exponential solvers: DPM-Solver++ 2S and 3S, of both types.

In ell = logsnr/2 the probability-flow ODE solves to

    z_t = (sigma_t/sigma_s) z_s + sigma_t ∫ e^ell x̂ dell

(Lu et al., arXiv:2211.01095 eq. 8). These evaluate x̂ inside the step, at levels
that are taken on vp: predictions do not depend on the scale. With B_k =
alpha_k (1 - e^{-r_k h}), where DDIM arrives, and the integrals m_k of r^k
(`coefficients.moments`), the update either takes a difference for a slope, or
integrates the polynomial through all predictions (the `_heun` forms, "taylor"
in the authors' code).
"""

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co


def single(levels, *more):
  """Which steps have an infinite h: one evaluation, DDIM. (N,) bool, static.

  Of a traced grid that is not known: every step keeps its evaluations, those
  inside an infinite one with weight 0.

  Args:
    more: (N,), other sizes of the steps that must be finite.
  """
  s, t = co.steps(levels)
  if co.namespace((levels, more)) is co.jnp:
    return co.np.zeros(s.logsnr.shape[0], bool)
  sizes = (co.step_size(s, t), *more)
  return ~co.np.isfinite(sizes).all(0)


def staged(levels, alone, inside, rows, short, target=co.X):
  """The Tableau of steps with several evaluations.

  Args:
    alone: (N,) bool, static, the steps that have one evaluation.
    inside: Levels (N,) of the evaluations after the first.
    rows: of each evaluation, the columns of the row that follows it, as
      keywords of `coefficients.columns`; the last one is the update.
    short: those of the update of a step with one evaluation of x̂.
    target: (a, b) of what is kept in the other steps, each () or (N,).
  """
  xp = co.namespace((levels, rows))
  s, _ = co.steps(levels)
  k, n = len(rows), alone.shape[0]
  wide = lambda row: xp.broadcast_to(co.columns(xp, k, **row), (n, k + 3))
  held = wide(dict(anchor=1.0))
  full, last, mix, where, step = [*map(wide, rows)], wide(short), [], [], []
  for i in range(n):
    where.append(s[i])
    if not alone[i]:
      for row, lv in zip(full[:-1], inside, strict=True):
        mix.append(xp.stack([held[i], row[i]]))
        where.append(lv[i])
    row = (last if alone[i] else full[-1])[i]
    mix.append(xp.stack([row, row]))
    step += [i] * (1 if alone[i] else k)
  gather = lambda field: xp.stack([getattr(lv, field) for lv in where])
  at = co.Level(*(gather(f) for f in ("logsnr", "alpha", "sigma")))
  step = co.np.array(step)
  kept = (xp.broadcast_to(xp.asarray(c, float), (n,)) for c in target)
  kept = [xp.where(alone, x, c)[step] for x, c in zip(co.X, kept, strict=True)]
  mix = xp.stack([xp.asarray(co.identity_row(k)), *mix])
  return co.tableau(levels, mix, kept, at, step)


def _two(levels, r, slope):
  """2S, whose update is z_t = DDIM + slope (x̂_m - x̂_s)/r."""
  checks.number("r", r, "in (0, 1]", lambda r: 0 < r <= 1)
  s, t = co.steps(levels)
  xp, h = co.namespace(levels), co.step_size(s, t)
  a, b = co.exact_step(s, t)
  mid = co.between(s, h, r)
  a_m, b_m = co.exact_step(s, mid)
  w = xp.where(xp.isfinite(h), slope(xp, h, t, b) / r, 0.0)
  stage = dict(anchor=a_m, h=[b_m])
  update = dict(anchor=a, h=[w, b - w])
  short = dict(anchor=a, h=[b])
  return staged(levels, single(levels), [mid], [stage, update], short)


def dpmpp_2s(levels, r=0.5):
  """DPM-Solver++(2S), arXiv:2211.01095 Alg. 1; order 2, any scale.

      x̂_m at ell_s + r h, by DDIM;   z_t = A z_s + B [(1 - 1/2r) x̂_s + x̂_m/2r]

  A step from alpha = 0 or to sigma = 0 is DDIM's, with one evaluation.

  Equation (dpmpp_2s) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    r: where the second evaluation is, in (0, 1].
  Returns:
    Tableau of 2 evaluations for every finite step, or every step of a traced
    grid; keeps 2 predictions.
  Raises:
    ValueError: r is outside (0, 1].
  """
  return _two(levels, r, lambda xp, h, t, b: 0.5 * b)


def dpmpp_2s_heun(levels, r=0.5):
  """DPM-Solver++(2S) with the exact integral of the line; order 2, any scale.

      z_t = A z_s + B x̂_s + alpha_t m_1(h) (x̂_m - x̂_s)/r,
      m_1(h) = 1 - (1 - e^-h)/h

  As `dpmpp_2s`, whose slope has the weight ½ B instead.

  Equation (dpmpp_2s) of docs/math. Equation (moments) of docs/math.

  Args:
    levels, r: as of `dpmpp_2s`.
  Returns:
    Tableau, as `dpmpp_2s`.
  Raises:
    ValueError: r is outside (0, 1].
  """
  return _two(levels, r, lambda xp, h, t, b: t.alpha * _m(xp, h, 1))


def _m(xp, h, k):
  """m_k(h), 0 where h is infinite."""
  finite = xp.isfinite(h)
  moment = co.moments(xp, xp.where(finite, h, 1.0), k + 1)[k]
  return xp.where(finite, moment, 0.0)


def _three(levels, r1, r2, weights):
  """3S, whose update is z_t = DDIM + w_1 (x̂_1 - x̂_s) + w_2 (x̂_2 - x̂_s)."""
  checks.number("r1", r1, "in (0, 1]", lambda r: 0 < r <= 1)
  checks.number("r2", r2, "in (0, 1]", lambda r: 0 < r <= 1)
  s, t = co.steps(levels)
  xp, h = co.namespace(levels), co.step_size(s, t)
  one, two = co.between(s, h, r1), co.between(s, h, r2)
  (a1, b1), (a2, b2), (a, b) = (co.exact_step(s, lv) for lv in (one, two, t))
  inner = r2 / r1 * two.alpha * _m(xp, r2 * h, 1)
  w1, w2 = weights(_m(xp, h, 1), _m(xp, h, 2))
  w1, w2 = t.alpha * w1, t.alpha * w2
  rows = [
    dict(anchor=a1, h=[b1]),
    dict(anchor=a2, h=[inner, b2 - inner]),
    dict(anchor=a, h=[w2, w1, b - w1 - w2]),
  ]
  short = dict(anchor=a, h=[b])
  return staged(levels, single(levels), [one, two], rows, short)


def dpmpp_3s(levels, r1=1 / 3, r2=2 / 3):
  """DPM-Solver++(3S), arXiv:2211.01095 app. B; order 3 with r2 = 2/3, else 2.

      x̂_1 at ell_s + r1 h, by DDIM
      x̂_2 at ell_s + r2 h, from DDIM + (r2/r1) alpha_2 m_1(r2 h) (x̂_1 - x̂_s)
      z_t = DDIM + alpha_t m_1(h) (x̂_2 - x̂_s)/r2,   m_1(h) = 1 - (1-e^-h)/h

  A step from alpha = 0 or to sigma = 0 is DDIM's, with one evaluation.

  Equation (dpmpp_3s) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    r1, r2: where the second and third evaluation are, in (0, 1].
  Returns:
    Tableau of 3 evaluations for every finite step, or every step of a traced
    grid; keeps 3 predictions.
  Raises:
    ValueError: r1 or r2 is outside (0, 1].
  """
  return _three(levels, r1, r2, lambda m1, m2: (0.0 * m1, m1 / r2))


def dpmpp_3s_heun(levels, r1=1 / 3, r2=2 / 3):
  """DPM-Solver++(3S) with the parabola's exact integral; order as `dpmpp_3s`.

      z_t = DDIM + alpha_t (m_1 D_1 + ½ m_2 D_2),   D_j^ = (x̂_j - x̂_s)/r_j
      D_1 = (r2 D_1^ - r1 D_2^)/(r2 - r1),  D_2 = 2 (D_2^ - D_1^)/(r2 - r1)

  with m_2(h) = 1 - 2 m_1/h; the stages are those of `dpmpp_3s`.

  Equation (parabola) of docs/math.

  Args:
    levels, r1, r2: as of `dpmpp_3s`; r1 and r2 differ.
  Returns:
    Tableau, as `dpmpp_3s`.
  Raises:
    ValueError: r1 or r2 is outside (0, 1], or they are equal.
  """
  if r1 == r2:
    raise ValueError(f"r1 and r2 must differ, not both {r1}")

  def weights(m1, m2):
    gap = r2 - r1
    return (r2 * m1 - m2) / (gap * r1), (m2 - r1 * m1) / (gap * r2)

  return _three(levels, r1, r2, weights)
