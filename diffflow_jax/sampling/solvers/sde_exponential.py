"""SDE-DPM-Solver++: exponential solvers of the reverse SDE, with any eta.

    z_t = (sigma_t/sigma_s) e^-kappa z_s + alpha_t ∫ H e^{-H(1-r)} x̂ dr
          + sigma_t √(1 - e^-2kappa) xi,      kappa = eta² h,  H = (1 + eta²) h

The reverse SDE with diffusion eta g, in ell = logsnr/2 (Lu et al.,
arXiv:2211.01095 §6). k-diffusion's `eta` of these samplers is our eta².
"""

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co
from diffflow_jax.sampling.solvers.multistep import half_slope


def _kappa(xp, h, eta):
  """eta² h; at an infinite step 0 without noise, else infinite."""
  finite = xp.isfinite(h)
  kappa = eta**2 * xp.where(finite, h, 0.0)
  return xp.where(finite, kappa, xp.where(eta > 0, xp.inf, 0.0))


def _sde_dpmpp(levels, order, eta, midpoint):
  """z_t = A z_s + alpha_t ∫ H e^{-H(1-r)} x̂ dr + noise, H = (1 + eta²) h."""
  xp = co.namespace((levels, eta))
  checks.number("eta", eta, "finite and >= 0", lambda e: 0 <= e < xp.inf)
  s, t = co.steps(levels)
  checks.no_noise_backwards(levels, eta)
  h = co.step_size(s, t)
  kappa = _kappa(xp, h, eta)
  a, b = co.exact_step(s, t, xp.exp(-kappa))
  ell = 0.5 * s.logsnr, 0.5 * t.logsnr
  nodes, count = co.history(xp, ell[0], *ell, order)
  goal = t.alpha * co.moments(xp, h + kappa, order)
  goal = xp.concatenate([b[None], goal[1:]])
  if midpoint:
    weights = half_slope(xp, b, b, nodes, count)
  else:
    weights = co.fit_weights(xp, nodes, goal, count)
  noise = t.sigma * xp.sqrt(-xp.expm1(-2.0 * kappa))
  mix = co.one_evaluation_mix(xp, order, a, list(weights), noise)
  return co.tableau(levels, mix, co.X, s)


def sde_dpmpp_1(levels, eta=1.0):
  """SDE-DPM-Solver++(1), arXiv:2211.01095 eq. 19, any eta; variance order 1.

      z_t = (sigma_t/sigma_s) e^{-eta² h} z_s + alpha_t (1 - e^{-(1+eta²)h}) x̂
            + sigma_t √(1 - e^{-2 eta² h}) xi

  Exact if x̂ is constant; eta = 1 is the paper's, 0 is DDIM.

  Args:
    levels: grid from noise to data, (N+1,); both exact ends are fine.
    eta: share of the reverse SDE's noise, >= 0.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: eta is negative, or there is noise on a grid from data to noise.
  """
  return _sde_dpmpp(levels, 1, eta, midpoint=False)


def sde_dpmpp_2m(levels, eta=1.0):
  """SDE-DPM-Solver++(2M), midpoint, as `sde_dpmpp_1`; variance order 2.

  Adds ½ alpha_t (1 - e^{-(1+eta²)h}) (h/h_prev) (x̂_s - x̂_prev); with eta = 0 it
  is `dpmpp_2m`.

  Args:
    levels, eta: as of `sde_dpmpp_1`.
  Returns:
    Tableau of N evaluations that keeps 2 predictions.
  Raises:
    ValueError: as `sde_dpmpp_1`.
  """
  return _sde_dpmpp(levels, 2, eta, midpoint=True)


def sde_dpmpp_3m(levels, eta=1.0):
  """SDE-DPM-Solver++(3M): the parabola's exact integral; variance order 2.

  With eta = 0 it is `dpmpp_3m`.

  Args:
    levels, eta: as of `sde_dpmpp_1`.
  Returns:
    Tableau of N evaluations that keeps 3 predictions.
  Raises:
    ValueError: as `sde_dpmpp_1`.
  """
  return _sde_dpmpp(levels, 3, eta, midpoint=False)
