"""Deterministic solvers of the probability-flow ODE as tableaus."""

from diffflow_jax.sampling import coefficients as co
from diffflow_jax.sampling.tableau import Tableau, evaluation_levels


def heun(levels):
  """Heun's method on the flow coordinate, order 2, on any scale.

      y = z/(alpha + sigma),  zeta = sigma/(alpha + sigma),  dy/dzeta = ε̂ - x̂
      y* = y_s + Δzeta f_s,   y_t = y_s + ½ Δzeta (f_s + f*)

  The coordinate is finite at both ends. A step that arrives at sigma = 0 is
  Euler's, as in EDM's Algorithm 1 (arXiv:2206.00364): there is nothing left to
  predict there.

  Args:
    levels: grid from noise to data, (N+1,); a traced one must end at sigma = 0.
  Returns:
    Tableau of 2N evaluations, 2N - 1 if sigma[-1] = 0; keeps 2 predictions.
  """
  xp = co.namespace(levels)
  n = levels.logsnr.shape[0] - 1
  ends_clean = xp is co.jnp or levels.sigma[-1] == 0
  scale = levels.alpha + levels.sigma
  zeta = levels.sigma / scale
  stay = co.row(2, anchor=1.0)
  mix, where, update = [], [], co.row(2, anchor=1.0)
  for i in range(n):
    gain = scale[i + 1] / scale[i]
    slope = scale[i + 1] * (zeta[i + 1] - zeta[i])
    euler = co.row(2, anchor=gain, h=(slope,))
    mix.append(xp.stack([update, update]))
    where.append(i)
    update = euler
    if i < n - 1 or not ends_clean:
      mix.append(xp.stack([stay, euler]))
      where.append(i + 1)
      update = co.row(2, anchor=gain, h=(0.5 * slope, 0.5 * slope))
  mix.append(xp.stack([update, update]))
  return Tableau(
    mix=xp.stack(mix),
    target=co.np.tile([-1.0, 1.0], (len(where), 1)),
    levels=evaluation_levels(levels, co.np.array(where)),
  )


def dpmpp_2m(levels):
  """DPM-Solver++(2M), arXiv:2211.01095 Alg. 2, midpoint; order 2, any scale.

      z_t = A z_s + B (x̂_s + ½ D),   D = (h/h_prev) (x̂_s - x̂_prev)
      A = sigma_t/sigma_s,  B = alpha_t (1 - e^-h)

  The first step, the step after alpha = 0 and a step to sigma = 0 are DDIM's.

  Args:
    levels: grid from noise to data, (N+1,).
  Returns:
    Tableau of N evaluations that keeps 2 predictions.
  """
  xp = co.namespace(levels)
  s, t = co.steps(levels)
  a, b = co.exact_step(s, t)
  h = co.step_size(s, t)
  h_prev = xp.concatenate([xp.full(1, xp.inf), h[:-1]])
  half = 0.5 * b * co.finite_ratio(xp, h, h_prev)
  return Tableau(
    mix=co.one_evaluation_mix(xp, 2, a, [b + half, -half]),
    target=co.np.tile([1.0, 0.0], (a.shape[0], 1)),
    levels=evaluation_levels(levels, slice(0, -1)),
  )
