"""Stochastic solvers as tableaus.

Every one-evaluation stochastic step is "DDIM from ell_s to ell_t + kappa, then
add the noise of kappa back":

    z_t = A z_s + B x̂ + sigma_t √(1 - e^-2kappa) xi
    A = (sigma_t/sigma_s) e^-kappa,   B = alpha_t - alpha_s A
"""

from diffflow_jax.sampling import coefficients as co
from diffflow_jax.sampling.tableau import Tableau, evaluation_levels


def ddim(levels, eta=0.0):
  """DDIM, arXiv:2010.02502 eq. 12 and 16; eta = 1 is DDPM on vp.

      z_t = alpha_t x̂ + √(sigma_t² - s²) ε̂ + s xi
      s = eta sigma_t √(1 - e^-2h)

  Order 1 in log-SNR, on any scale; exact if x̂ is constant. With eta = 0 it is
  DPM-Solver++(1), and Euler's step on the flow schedule.

  Args:
    levels: grid from noise to data, (N+1,); alpha[0] and sigma[-1] may be 0.
    eta: 0 deterministic; up to 1/√(1 - e^-2h) for the largest step.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: eta is negative, or so large that a variance would be.
  """
  xp = co.namespace((levels, eta))
  s, t = co.steps(levels)
  fresh = -xp.expm1(-2.0 * co.step_size(s, t))
  left = 1.0 - eta**2 * fresh
  if xp is not co.jnp and (eta < 0 or (left < 0).any()):
    limit = (fresh**-0.5).min()
    raise ValueError(
      f"eta must be between 0 and {limit:g} on this grid, not {eta:g}"
    )
  keep = xp.sqrt(left)
  a, b = co.exact_step(s, t, keep)
  noise = t.sigma * eta * xp.sqrt(fresh)
  n = a.shape[0]
  return Tableau(
    mix=co.one_evaluation_mix(xp, 1, a, [b], noise),
    target=co.np.tile([1.0, 0.0], (n, 1)),
    levels=evaluation_levels(levels, slice(0, -1)),
  )
