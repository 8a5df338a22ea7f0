"""SDE-DPM-Solver++: exponential solvers of the reverse SDE, with any eta.

    z_t = (sigma_t/sigma_s) e^-kappa z_s + alpha_t ∫ H e^{-H(1-r)} x̂ dr
          + sigma_t √(1 - e^-2kappa) xi,      kappa = eta² h,  H = (1 + eta²) h

The reverse SDE with diffusion eta g, in ell = logsnr/2 (Lu et al.,
arXiv:2211.01095 §6). k-diffusion's `eta` of these samplers is our eta².
"""

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co, per_step
from diffflow_jax.sampling.solvers.multistep import half_slope


def _kappa(xp, h, eta):
  """eta² h; at an infinite step 0 without noise, else infinite."""
  finite = xp.isfinite(h)
  kappa = eta**2 * xp.where(finite, h, 0.0)
  return xp.where(finite, kappa, xp.where(eta > 0, xp.inf, 0.0))


def _sde_dpmpp(
  levels, order, eta, midpoint=False, orders=None, lower_order_final=False
):
  """z_t = A z_s + alpha_t ∫ H e^{-H(1-r)} x̂ dr + noise, H = (1 + eta²) h."""
  s, t = co.steps(levels)
  eta = per_step.numbers("eta", eta, levels)
  xp = co.namespace((levels, eta))
  checks.no_noise_backwards(levels, eta)
  h = co.step_size(s, t)
  kappa = _kappa(xp, h, eta)
  a, b = co.exact_step(s, t, xp.exp(-kappa))
  ell = 0.5 * s.logsnr, 0.5 * t.logsnr
  most = per_step.orders(order, h.shape[0], orders, lower_order_final)
  nodes, count = co.history(xp, ell[0], *ell, order, most)
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

  Exact if x̂ is constant; eta = 1 is the paper's, 0 is DDIM. k-diffusion's `eta`
  here is our eta².

  Equation (renoise) of docs/math. Equation (sde_exponential) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); both exact ends are fine.
    eta: share of the reverse SDE's noise, >= 0; one number, one for each step,
      or a function of the level that a step leaves from.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: eta is negative, or there is noise on a grid from data to noise.
  """
  return _sde_dpmpp(levels, 1, eta)


def sde_dpmpp_2m(levels, eta=1.0, *, orders=None, lower_order_final=False):
  """SDE-DPM-Solver++(2M), midpoint, as `sde_dpmpp_1`; variance order 2.

  Adds ½ alpha_t (1 - e^{-(1+eta²)h}) (h/h_prev) (x̂_s - x̂_prev); with eta = 0 it
  is `dpmpp_2m`. k-diffusion's `eta` here is our eta².

  Equation (sde_exponential) of docs/math. Equation (dpmpp_2m) of docs/math.

  Args:
    levels, eta: as of `sde_dpmpp_1`.
    orders, lower_order_final: as of `dpmpp_2m`.
  Returns:
    Tableau of N evaluations that keeps 2 predictions.
  Raises:
    ValueError: as `sde_dpmpp_1`, or orders that do not fit.
  """
  return _sde_dpmpp(levels, 2, eta, True, orders, lower_order_final)


def sde_dpmpp_2m_heun(levels, eta=1.0, *, orders=None, lower_order_final=False):
  """SDE-DPM-Solver++(2M) with the line's exact integral; variance order 2.

  As `sde_dpmpp_2m`, but with H = (1 + eta²) h it adds

      alpha_t (1 - (1 - e^-H)/H) (h/h_prev) (x̂_s - x̂_prev)

  which is diffusers' "sde-dpmsolver++" of type "heun" for eta = 1; with eta = 0
  it is `dpmpp_2m_heun`. k-diffusion's `eta` here is our eta².

  Equation (sde_exponential) of docs/math. Equation (multistep) of docs/math.

  Args:
    levels, eta: as of `sde_dpmpp_1`.
    orders, lower_order_final: as of `dpmpp_2m`.
  Returns:
    Tableau of N evaluations that keeps 2 predictions.
  Raises:
    ValueError: as `sde_dpmpp_2m`.
  """
  return _sde_dpmpp(levels, 2, eta, False, orders, lower_order_final)


def sde_dpmpp_3m(levels, eta=1.0, *, orders=None, lower_order_final=False):
  """SDE-DPM-Solver++(3M): the parabola's exact integral; variance order 2.

  With eta = 0 it is `dpmpp_3m`. k-diffusion's `eta` here is our eta², and its
  weight of the second difference half of what is due, as of `dpmpp_3m_half`.

  Equation (sde_exponential) of docs/math. Equation (multistep) of docs/math.

  Args:
    levels, eta: as of `sde_dpmpp_1`.
    orders, lower_order_final: as of `dpmpp_2m`.
  Returns:
    Tableau of N evaluations that keeps 3 predictions.
  Raises:
    ValueError: as `sde_dpmpp_2m`.
  """
  return _sde_dpmpp(levels, 3, eta, False, orders, lower_order_final)
