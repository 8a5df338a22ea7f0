"""UniP and UniPC: a predictor, and a corrector that costs no evaluation.

Zhao et al., arXiv:2302.04867. The predictor is the data-form multistep step of
`multistep`; the corrector repeats the step once x̂ at its own result is known,
with that as one more node at r = 1, and the next step leaves from there. Only
where a single difference is left does the paper set its weight to ½ B(h) with
B = 1 - e^-h ("bh2") or h ("bh1"); everywhere else B cancels.
"""

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co, per_step
from diffflow_jax.sampling.solvers.multistep import half_slope


def _pieces(levels, order, variant, orders, lower_order_final):
  """What predictor and corrector share; `whole` is alpha_t B(h)."""
  checks.order(order)
  if variant not in ("bh1", "bh2"):
    raise ValueError(f"variant must be 'bh1' or 'bh2', not {variant!r}")
  xp = co.namespace(levels)
  s, t = co.steps(levels)
  a, b = co.exact_step(s, t)
  h = co.step_size(s, t)
  ell = 0.5 * s.logsnr, 0.5 * t.logsnr
  most = per_step.orders(order, len(a), orders, lower_order_final)
  nodes, count = co.history(xp, ell[0], *ell, order, most)
  goal = t.alpha * co.moments(xp, h, order + 1)
  goal = xp.concatenate([b[None], goal[1:]])
  safe = xp.where(xp.isfinite(h), h, 0.0)
  whole = b if variant == "bh2" else t.alpha * safe
  return xp, a, goal, nodes, count, xp.isfinite(h), whole


def _predictor(xp, goal, nodes, count, whole):
  order = nodes.shape[0]
  weights = co.fit_weights(xp, nodes, goal[:order], count)
  if order == 1:
    return weights
  two = half_slope(xp, goal[0], whole, nodes, count)
  two = xp.concatenate([two, xp.zeros_like(weights[2:])])
  return xp.where(count == 2, two, weights)


def _corrector(xp, goal, nodes, count, finite, whole):
  """Weights of (x̂ at the result, x̂_s, x̂_{-1}, …), (order + 1, N)."""
  nodes = xp.concatenate([nodes[:1], xp.ones_like(nodes[:1]), nodes[1:]])
  weights = co.fit_weights(xp, nodes, goal, count + 1)
  half = xp.where(finite, 0.5 * whole, 0.0)
  one = xp.stack([goal[0] - half, half])
  one = xp.concatenate([one, xp.zeros_like(weights[2:])])
  weights = xp.where(count == 1, one, weights)
  return xp.concatenate([weights[1:2], weights[:1], weights[2:]])


def unip(
  levels, order=3, variant="bh2", *, orders=None, lower_order_final=False
):
  """UniP, arXiv:2302.04867 eq. 3: the predictor alone.

  Order 2 is `dpmpp_2m` with "bh2"; order 3 is `dpmpp_3m` but for the second
  step, which is that of `dpmpp_2m`, and reaches order 2 asymptotically, as that
  does with its start.

  Equation (multistep) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); both exact ends are fine.
    order: 1, 2 or 3; variant: above.
    orders, lower_order_final: as of `dpmpp_2m`.
  Returns:
    Tableau of N evaluations that keeps `order` predictions.
  """
  xp, a, goal, nodes, count, _, whole = _pieces(
    levels, order, variant, orders, lower_order_final
  )
  weights = _predictor(xp, goal, nodes, count, whole)
  mix = co.one_evaluation_mix(xp, order, a, list(weights))
  return co.tableau(levels, mix, co.X, levels[:-1])


def unipc(
  levels, order=2, variant="bh2", *, orders=None, lower_order_final=False
):
  """UniPC, arXiv:2302.04867 Alg. 1 and 2; order + 1 asymptotically, at most 3.

  One row corrects the last step (anchor) and predicts the next one (z). The
  last step is not corrected, as nothing is evaluated after it; with order = 3
  the first steps' lower order limits the whole to 3.

  Equation (unipc) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); order: 1, 2 or 3; variant: above.
    orders, lower_order_final: as of `dpmpp_2m`; the corrector of a step is of
      one order more than the step.
  Returns:
    Tableau of N evaluations that keeps order + 1 predictions.
  """
  xp, a, goal, nodes, count, finite, whole = _pieces(
    levels, order, variant, orders, lower_order_final
  )
  k = order + 1
  predict = _predictor(xp, goal, nodes, count, whole)
  correct = _corrector(xp, goal, nodes, count, finite, whole)
  # the anchor before evaluation i = 1 … N-1, as a mix of the one before it
  shifted = lambda c, first: xp.concatenate([xp.full(1, first), c[:-1]])
  anchor = co.columns(
    xp,
    k,
    anchor=shifted(a, 1.0),
    h=[shifted(c, 0.0) for c in correct],
  )
  z = a[:, None] * anchor + co.columns(xp, k, h=list(predict))
  rows = xp.stack([anchor, z], axis=1)
  last = xp.stack([rows[-1, 1], rows[-1, 1]])[None]
  mix = xp.concatenate([xp.asarray(co.identity_row(k))[None], rows[:-1], last])
  return co.tableau(levels, mix, co.X, levels[:-1])
