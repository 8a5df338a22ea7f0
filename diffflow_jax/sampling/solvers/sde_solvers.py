"""One-evaluation stochastic solvers: DDIM, DDPM and their kin.

Every one-evaluation stochastic step is "DDIM from ell_s to ell_t + kappa, then
add the noise of kappa back":

    z_t = A z_s + B x̂ + sigma_t √(1 - e^-2kappa) xi
    A = (sigma_t/sigma_s) e^-kappa,   B = alpha_t - alpha_s A

    kappa = 0                              DDIM
    kappa = h                              DDPM, small variance
    kappa = -½ log(1 - eta² (1 - e^-2h))   DDIM(eta), Euler ancestral
    kappa = eta² h                         SDE-DPM-Solver++
    kappa = inf                            consistency sampling

What is not here because it is no table: a variance that the network learns
(arXiv:2102.09672 eq. 15) makes the size of the noise a network's output; `ddpm`
takes a fixed interpolation. Adjusted DDIM's norm is in `adjusted_ddim`.
SDE-DPM-Solver++ is in `sde_exponential`, steps of an SDE in `sde_steps`.
"""

import numpy as np

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co, per_step

EPS_AS_IT_COMES = (  # use ε̂ itself, so CFG++'s own one
  "adjusted_ddim", "ddim", "ddpm", "dpmpp_1", "euler_ancestral",
)  # fmt: skip


def overshoot(levels, keep, noise, to=None):
  """The Tableau of α_t x̂ + σ_t keep ε̂ + noise xi, keep = e^-kappa.

  x̂ and ε̂ are used as they come, so the row is the paper's line also where a
  predictor returns a pair that is not on alpha x̂ + sigma ε̂ = z (CFG++).

  Args:
    to: None, or the log-SNR (N,) that a flow map is told to go to.
  """
  xp = co.namespace((levels, keep, noise))
  s, t = co.steps(levels)
  one = xp.ones_like(t.sigma)
  mix = co.one_evaluation_mix(xp, 1, 0.0 * one, [one], noise)
  return co.tableau(levels, mix, (t.alpha, t.sigma * keep), s.replace(to=to))


def ancestral(s, t, eta):
  """(e^-kappa, the noise) of DDIM(eta): √(1 - eta² f) and eta sigma_t √f.

  f = 1 - e^-2h with h of the step s -> t; no noise on the way to noise.

  Raises:
    ValueError: a variance would be negative.
  """
  xp = co.namespace((s, t, eta))
  forward = xp.maximum(co.step_size(s, t), 0.0)  # 0 on the way to noise
  fresh = -xp.expm1(-2.0 * forward)
  left = 1.0 - eta**2 * fresh
  if not checks.is_traced(left) and not (left >= 0).all():
    i = int(np.argmin(left))
    most, found = fresh[i] ** -0.5, np.broadcast_to(eta, left.shape)[i]
    raise ValueError(
      f"eta must be between 0 and {most:g} on this grid in step {i}, "
      f"not {found}"
    )
  # √left where left may be 0 (eta = 1 into sigma = 0): no infinite slope
  keep = xp.where(left > 0, xp.sqrt(xp.where(left > 0, left, 1.0)), 0.0)
  # √fresh where fresh may be 0: the same
  root = xp.sqrt(xp.where(fresh > 0, fresh, 1.0))
  return keep, xp.where(fresh > 0, t.sigma * eta * root, 0.0)


def ddim(levels, eta=0.0):
  """DDIM, arXiv:2010.02502 eq. 12 and 16; eta = 1 is DDPM on vp.

      z_t = alpha_t x̂ + √(sigma_t² - s²) ε̂ + s xi
      s = eta sigma_t √(1 - e^-2h)

  Order 1 in log-SNR, on any scale; exact if x̂ is constant. With eta = 0 it is
  DPM-Solver++(1), and Euler's step on the flow schedule; with eta > 0 it is
  Euler's ancestral sampler.

  Equation (ddim) of docs/math. Equation (ancestral) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); alpha[0] and sigma[-1] may be 0.
    eta: 0 deterministic; up to 1/√(1 - e^-2h) for the largest step. One number,
      one for each step, or a function of the level that a step leaves from.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: eta is negative, or so large that a variance would be, or there
      is noise on a grid from data to noise.
  """
  s, t = co.steps(levels)
  eta = per_step.numbers("eta", eta, levels)
  checks.no_noise_backwards(levels, eta)
  keep, noise = ancestral(s, t, eta)
  return overshoot(levels, keep, noise)


def euler_ancestral(levels, eta=1.0):
  """k-diffusion's ancestral Euler: `ddim` with eta = 1.

  Equation (ancestral) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); eta: as of `ddim`.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: as `ddim`.
  """
  return ddim(levels, eta)


def ddpm(levels, variance=0.0):
  """Ancestral sampling, arXiv:2006.11239 eq. 7 and 11; weak order 1.

      mean = (alpha_t/alpha_s) (z_s - sigma_s (1 - e^-2h) ε̂)
      small = sigma_t² (1 - e^-2h),   large = sigma_{s|t}² V_t/V_s
      log variance = (1 - v) log small + v log large,   V = alpha² + sigma²

  small (v = 0) is exact for one data point, large (v = 1) for data N(0, I); on
  vp large is beta. The step to sigma = 0 draws no noise.

  Equation (renoise) of docs/math. Equation (ddpm) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    variance: v in [0, 1]; may differ by step, as eta of `ddim`.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: variance is outside [0, 1], or the grid is from data to noise.
  """
  s, t = co.steps(levels)
  variance = per_step.numbers(
    "variance", variance, levels, "between 0 and 1", lambda v: 0 <= v <= 1
  )
  xp = co.namespace((levels, variance))
  checks.no_noise_backwards(levels, True)
  h = co.step_size(s, t)
  norm = lambda lv: xp.hypot(lv.alpha, lv.sigma)
  small = t.sigma
  large = xp.where(t.sigma > 0, s.sigma * norm(t) / norm(s), 0.0)
  blend = xp.where(
    t.sigma > 0,
    xp.where(t.sigma > 0, small, 1.0) ** (1.0 - variance)
    * xp.where(t.sigma > 0, large, 1.0) ** variance,
    0.0,
  )
  return overshoot(levels, xp.exp(-h), blend * xp.sqrt(-xp.expm1(-2.0 * h)))


def consistency(levels):
  """Consistency, LCM, stochastic flow sampling: z_t = alpha_t x̂ + sigma_t xi.

  arXiv:2303.01469 Alg. 1, for models whose x̂ is the end of the flow; kappa is
  infinite. Samples of the right law only from such a model.

  Equation (renoise) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); alpha[0] and sigma[-1] may be 0.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: the grid is from data to noise.
  """
  _, t = co.steps(levels)
  checks.no_noise_backwards(levels, True)
  return overshoot(levels, 0.0, t.sigma)


def adjusted_ddim(levels, v=0.1):
  """Adjusted DDIM, arXiv:2403.06807 Alg. 3, with ‖ε̂‖² at its mean d; order 1.

      z_t = alpha_t x̂ + √(sigma_t² + B² v_x) ε̂
      B = alpha_t - alpha_s sigma_t/sigma_s,   v_x = v/(2 + SNR_s)

  It makes up for the variance that x̂, a mean, lacks. The paper's factor
  d/‖ε̂‖², near 1, depends on the sample and is not linear.

  Equation (adjusted_ddim) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); v: the variance of x̂'s lack.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: v is negative.
  """
  xp = co.namespace((levels, v))
  checks.number("v", v, "finite and >= 0", lambda v: 0 <= v < xp.inf)
  s, t = co.steps(levels)
  _, b = co.exact_step(s, t)
  v_x = v * s.sigma**2 / (2.0 * s.sigma**2 + s.alpha**2)
  mix = co.one_evaluation_mix(xp, 1, 0.0 * b, [xp.ones_like(b)])
  safe = xp.where(t.sigma > 0, t.sigma**2 + b**2 * v_x, 1.0)
  wide = xp.where(t.sigma > 0, xp.sqrt(safe), 0.0)  # x̂ itself at sigma = 0
  return co.tableau(levels, mix, (t.alpha, wide), s)
