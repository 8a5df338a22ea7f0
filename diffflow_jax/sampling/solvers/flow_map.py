"""Solvers of flow maps: networks that are told the level that they go to.

A flow map's pair (x̂, ε̂) is of its whole step, so that every step of these is
exact for an exact map, however long. Each goes to a level that is cleaner than
t by kappa, and adds noise back (`sde_solvers`):

    z_t = alpha_t x̂ + sigma_t e^-kappa ε̂ + sigma_t √(1 - e^-2kappa) xi
    the network is told to go to logsnr_t + 2 kappa

    kappa = 0                              deterministic, on any grid
    kappa = -½ log(1 - gamma²)             CTM's gamma
    kappa = inf                            multistep consistency, gamma = 1
    kappa = ell((1 - gamma) t) - ell(t)    TCD's gamma
    kappa = -½ log(1 - eta² (1 - e^-2h))   DDIM(eta); DDPM at eta = 1

Told t itself, the samples would have another law than the data. The network is
called once a step: N steps are N evaluations, and one is enough.
"""

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import (
  coefficients as co,
  coordinates,
  per_step,
)
from diffflow_jax.sampling.solvers.sde_solvers import ancestral, overshoot


def _told(t, keep):
  """logsnr_t + 2 kappa of keep = e^-kappa; the data, inf, where keep is 0."""
  xp = co.namespace((t, keep))
  some = keep > 0
  return xp.where(
    some, t.logsnr - 2.0 * xp.log(xp.where(some, keep, 1.0)), xp.inf
  )


def flow_map(levels, gamma=0.0):
  """A flow map's steps along a grid, with a part gamma of the noise renewed.

      z_t = alpha_t x̂ + √(1 - gamma²) sigma_t ε̂ + gamma sigma_t xi

  gamma = 0 draws nothing: an exact map then gives one sample on every grid.
  gamma = 1 is multistep consistency sampling, arXiv:2303.01469 Alg. 1, whose
  network is always told to go to the data; between them gamma is that of CTM,
  arXiv:2310.02279 Alg. 3.

  Equation (gamma_sampling) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); alpha[0] and sigma[-1] may be 0.
    gamma: in [0, 1]; one number, one for each step, or a function of the level
      that a step leaves from.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: gamma is outside [0, 1], or the grid is from data to noise.
  """
  checks.grid(levels)
  gamma = per_step.numbers(
    "gamma", gamma, levels, "in [0, 1]", lambda g: 0 <= g <= 1
  )
  xp = co.namespace((levels, gamma))
  _, t = co.steps(levels)
  left = (1.0 - gamma) * (1.0 + gamma) * xp.ones_like(t.sigma)
  some = left > 0  # no infinite slope of the root at gamma = 1
  keep = xp.where(some, xp.sqrt(xp.where(some, left, 1.0)), 0.0)
  return overshoot(levels, keep, gamma * t.sigma, _told(t, keep))


def flow_map_ddim(levels, eta=1.0):
  """DDIM(eta) with a flow map, told the level that the noise is added to.

      z_t = alpha_t x̂ + √(sigma_t² - s²) ε̂ + s xi
      s = eta sigma_t √(1 - e^-2h)

  eta = 1 is DDPM's small variance, for which the network is told to go over
  twice the step in log-SNR; eta = 0 is `flow_map`.

  Equation (gamma_sampling) of docs/math. Equation (ancestral) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); alpha[0] and sigma[-1] may be 0.
    eta: as of `ddim`.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: as `ddim`, or the grid is from data to noise.
  """
  checks.grid(levels)
  s, t = co.steps(levels)
  eta = per_step.numbers("eta", eta, levels)
  keep, noise = ancestral(s, t, eta)
  return overshoot(levels, keep, noise, _told(t, keep))


def flow_map_tcd(levels, gamma=0.3, coordinate="angle"):
  """TCD's sampling, arXiv:2402.19159 Alg. 4: to time (1 - gamma) t, and back.

      z_t = alpha_t x̂ + k sigma_t ε̂ + √(1 - k²) sigma_t xi
      k = (sigma/alpha at time (1 - gamma) t) / (sigma/alpha at time t)

  Equation (tcd) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,), whose steps end at alpha > 0.
    gamma: in [0, 1]: 0 draws nothing, 1 goes to the data; may differ by step,
      as of `flow_map`.
    coordinate: whose time t is: a name or a pair, see `coordinates`; the
      schedule that the network was trained on is the paper's.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: gamma is outside [0, 1], the grid is from data to noise, or a
      level is not on the coordinate's path.
  """
  checks.grid(levels)
  gamma = per_step.numbers(
    "gamma", gamma, levels, "in [0, 1]", lambda g: 0 <= g <= 1
  )
  xp = co.namespace((levels, gamma))
  _, t = co.steps(levels)
  clock = coordinates.time_of(t, coordinate)
  cleaner = coordinates.at(coordinate, (1.0 - gamma) * clock)
  # t's own level where nothing is added, to the last digit
  moves = (gamma > 0) & (t.sigma > 0)
  told = xp.where(moves, xp.maximum(cleaner.logsnr, t.logsnr), t.logsnr)
  kappa = xp.where(moves, 0.5 * (told - xp.where(moves, t.logsnr, 0.0)), 0.0)
  noise = t.sigma * xp.sqrt(-xp.expm1(-2.0 * kappa))
  return overshoot(levels, xp.exp(-kappa), noise, told)
