"""Stochastic solvers as tableaus.

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
"""

import numpy as np

from diffflow_jax.process import levels as levels_lib
from diffflow_jax.sampling import coefficients as co, coordinates
from diffflow_jax.sampling.multistep import half_slope


def _check_eta(xp, eta):
  if xp is np and not eta >= 0:
    raise ValueError(f"eta must be >= 0, not {eta:g}")


def _overshoot(levels, keep, noise):
  """The Tableau of α_t x̂ + σ_t keep ε̂ + noise xi, keep = e^-kappa.

  x̂ and ε̂ are used as they come, so the row is the paper's line also where a
  predictor returns a pair that is not on alpha x̂ + sigma ε̂ = z (CFG++).
  """
  xp = co.namespace((levels, keep, noise))
  s, t = co.steps(levels)
  one = xp.ones_like(t.sigma)
  mix = co.one_evaluation_mix(xp, 1, 0.0 * one, [one], noise)
  return co.tableau(levels, mix, (t.alpha, t.sigma * keep), s)


def ddim(levels, eta=0.0):
  """DDIM, arXiv:2010.02502 eq. 12 and 16; eta = 1 is DDPM on vp.

      z_t = alpha_t x̂ + √(sigma_t² - s²) ε̂ + s xi
      s = eta sigma_t √(1 - e^-2h)

  Order 1 in log-SNR, on any scale; exact if x̂ is constant. With eta = 0 it is
  DPM-Solver++(1), and Euler's step on the flow schedule; with eta > 0 it is
  Euler's ancestral sampler.

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
  if xp is np and not (eta >= 0 and (left >= 0).all()):
    limit = (fresh**-0.5).min()
    raise ValueError(
      f"eta must be between 0 and {limit:g} on this grid, not {eta:g}"
    )
  # √left where left may be 0 (eta = 1 into sigma = 0): no infinite slope
  keep = xp.where(left > 0, xp.sqrt(xp.where(left > 0, left, 1.0)), 0.0)
  return _overshoot(levels, keep, t.sigma * eta * xp.sqrt(fresh))


def ddpm(levels, variance=0.0):
  """Ancestral sampling, arXiv:2006.11239 eq. 7 and 11; weak order 1.

      mean = (alpha_t/alpha_s) (z_s - sigma_s (1 - e^-2h) ε̂)
      small = sigma_t² (1 - e^-2h),   large = sigma_{s|t}² V_t/V_s
      log variance = (1 - v) log small + v log large,   V = alpha² + sigma²

  small (v = 0) is exact for one data point, large (v = 1) for data N(0, I); on
  vp large is beta. The step to sigma = 0 draws no noise.

  Args:
    levels: grid from noise to data, (N+1,); variance: v in [0, 1].
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: variance is outside [0, 1].
  """
  xp = co.namespace((levels, variance))
  if xp is np and not 0 <= variance <= 1:
    raise ValueError(f"variance must be between 0 and 1, not {variance:g}")
  s, t = co.steps(levels)
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
  return _overshoot(levels, xp.exp(-h), blend * xp.sqrt(-xp.expm1(-2.0 * h)))


def consistency(levels):
  """Consistency, LCM, stochastic flow sampling: z_t = alpha_t x̂ + sigma_t xi.

  arXiv:2303.01469 Alg. 1, for models whose x̂ is the end of the flow; kappa is
  infinite. Samples of the right law only from such a model.

  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  """
  _, t = co.steps(levels)
  return _overshoot(levels, 0.0, t.sigma)


def adjusted_ddim(levels, v=0.1):
  """Adjusted DDIM, arXiv:2403.06807 Alg. 3, with ‖ε̂‖² at its mean d; order 1.

      z_t = alpha_t x̂ + √(sigma_t² + B² v_x) ε̂
      B = alpha_t - alpha_s sigma_t/sigma_s,   v_x = v/(2 + SNR_s)

  It makes up for the variance that x̂, a mean, lacks. The paper's factor
  d/‖ε̂‖², near 1, depends on the sample and is not linear.

  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  """
  xp = co.namespace((levels, v))
  s, t = co.steps(levels)
  _, b = co.exact_step(s, t)
  v_x = v * s.sigma**2 / (2.0 * s.sigma**2 + s.alpha**2)
  mix = co.one_evaluation_mix(xp, 1, 0.0 * b, [xp.ones_like(b)])
  lift = xp.where(t.sigma > 0, b**2 * v_x, 0.0)  # x̂ itself at sigma = 0
  safe = xp.where(t.sigma > 0, t.sigma**2 + lift, 1.0)
  wide = xp.where(t.sigma > 0, xp.sqrt(safe), 0.0)
  return co.tableau(levels, mix, (t.alpha, wide), s)


def _kappa(xp, h, eta):
  """eta² h; at an infinite step 0 without noise, else infinite."""
  finite = xp.isfinite(h)
  kappa = eta**2 * xp.where(finite, h, 0.0)
  return xp.where(finite, kappa, xp.where(eta > 0, xp.inf, 0.0))


def _sde_dpmpp(levels, order, eta, midpoint):
  """z_t = A z_s + alpha_t ∫ H e^{-H(1-r)} x̂ dr + noise, H = (1 + eta²) h."""
  xp = co.namespace((levels, eta))
  _check_eta(xp, eta)
  s, t = co.steps(levels)
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

  The reverse SDE with diffusion eta g, exact if x̂ is constant; eta = 1 is the
  paper's, 0 is DDIM. k-diffusion's `eta` of these samplers is our eta².

  Args:
    levels: grid from noise to data, (N+1,); both exact ends are fine.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: eta is negative.
  """
  return _sde_dpmpp(levels, 1, eta, midpoint=False)


def sde_dpmpp_2m(levels, eta=1.0):
  """SDE-DPM-Solver++(2M), midpoint, as `sde_dpmpp_1`; variance order 2.

  Adds ½ alpha_t (1 - e^{-(1+eta²)h}) (h/h_prev) (x̂_s - x̂_prev); with eta = 0 it
  is `dpmpp_2m`. Keeps 2 predictions.
  """
  return _sde_dpmpp(levels, 2, eta, midpoint=True)


def sde_dpmpp_3m(levels, eta=1.0):
  """SDE-DPM-Solver++(3M): the parabola's exact integral; keeps 3 predictions.

  With eta = 0 it is `dpmpp_3m`.
  """
  return _sde_dpmpp(levels, 3, eta, midpoint=False)


def euler_maruyama(levels, eta=1.0, epsilon=None, coordinate="flow"):
  """Euler-Maruyama for the reverse SDE, arXiv:2011.13456 eq. 6; weak order 1.

      dz = (u - ½ e² score) dt + e dw,   e = eta g  or  e = epsilon
      g² = 2 sigma (dsigma - sigma dalpha/alpha)

  on the path of `coordinate`, which fixes both the clock and the drift. The
  marginals are those of the path for every e (arXiv:2303.08797). Steps from
  alpha = 0, where g is infinite, and to sigma = 0 draw no noise and follow u.
  g² dt must stay small against sigma²: the exponential `sde_dpmpp_1` does not
  need that, and is what to use otherwise.

  Args:
    levels: grid from noise to data, (N+1,).
    eta: of e = eta g; epsilon: constant e instead of it.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: eta or epsilon is negative.
  """
  xp = co.namespace((levels, eta, epsilon))
  _check_eta(xp, eta if epsilon is None else epsilon)
  clock = coordinates.times(levels, coordinate)
  path = coordinates.at(coordinate, clock)
  s, dt = path[:-1], clock[1:] - clock[:-1]
  noisy = (s.alpha > 0) & (path.sigma[1:] > 0)
  slope = s.dalpha / xp.where(s.alpha > 0, s.alpha, 1.0)
  g = xp.sqrt(2.0 * s.sigma * (s.dsigma - s.sigma * slope))
  e = xp.where(noisy, eta * g if epsilon is None else epsilon, 0.0)
  noise = e * xp.sqrt(-dt)
  mix = co.one_evaluation_mix(xp, 1, xp.ones_like(dt), [dt], noise)
  first = coordinates.gain(levels[0], path[0])
  last = coordinates.gain(path[-1], levels[-1])
  mix = xp.concatenate([mix[:1] * first, mix[1:-1], mix[-1:] * last])
  return co.tableau(levels, mix, (s.dalpha, s.dsigma + 0.5 * e**2 / s.sigma), s)


def langevin(levels, num_corrections=1, step=0.1, eta=0.0):
  """Predictor-corrector, arXiv:2011.13456 Alg. 1, with a fixed relative step.

  Each DDIM(eta) step but the last is followed, at the level where it arrives,
  by num_corrections steps of Langevin dynamics of size step sigma²:

      z <- z - step sigma ε̂ + √(2 step) sigma xi

  Its stationary law is off by O(step).

  Args:
    levels: grid from noise to data, (N+1,); step: > 0, well below 1.
  Returns:
    Tableau of N + (N-1) num_corrections evaluations; keeps 1 prediction.
  Raises:
    ValueError: num_corrections < 0 or step <= 0.
  """
  if num_corrections < 0 or int(num_corrections) != num_corrections:
    raise ValueError(
      f"num_corrections must be an integer >= 0, not {num_corrections!r}"
    )
  if not step > 0:
    raise ValueError(f"step must be > 0, not {step:g}")
  move = ddim(levels, eta)
  m, n = num_corrections, move.mix.shape[0] - 1
  xp = co.namespace(move)
  sigma = move.levels.sigma[1:]
  fix = co.columns(
    xp, 1, z=1.0, h=[-step * sigma], noise=np.sqrt(2 * step) * sigma
  )
  fix = xp.broadcast_to(fix[:, None, None], (n - 1, m, 2, 4))
  rows = xp.concatenate([move.mix[1:-1, None], fix], 1).reshape(-1, 2, 4)
  # evaluation 0, then m corrections and a prediction at each inner level
  repeat = lambda a: xp.concatenate([a[:1], xp.repeat(a[1:], m + 1, 0)])
  predicts = np.concatenate([[True], np.tile([False] * m + [True], n - 1)])
  target = xp.where(predicts[:, None], repeat(move.target), xp.asarray(co.EPS))
  at = levels_lib.Level(
    *(repeat(getattr(move.levels, f)) for f in ("logsnr", "alpha", "sigma"))
  )
  mix = xp.concatenate([move.mix[:1], rows, move.mix[-1:]])
  return move.replace(mix=mix, target=target, levels=at)
