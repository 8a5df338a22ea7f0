"""Churn: noise that is added before a step; EDM's sampler, and any other's.

    sigma^ = (1 + gamma) sigma_i,  y^ = y + s_noise √(sigma^² - sigma_i²) xi

in y = z/alpha, sigma/alpha (arXiv:2206.00364 Alg. 2): a step then leaves from
the noisier level. With s_noise = 1 the marginals stay exact. s_min and s_max
are the paper's S_tmin and S_tmax, bounds on sigma/alpha.
"""

import math

import numpy as np

from diffflow_jax.process.levels import Level
from diffflow_jax.sampling import checks, compose
from diffflow_jax.sampling.solvers import (
  butcher,
  coefficients as co,
  coordinates,
  per_step,
)
from diffflow_jax.sampling.solvers.rk import flat, stages
from diffflow_jax.sampling.tableau import without_clock


def _gamma(levels, s_churn, s_min, s_max, s_noise):
  """min(s_churn/N, √2 - 1) where s_min <= sigma_i/alpha_i <= s_max, else 0."""
  if checks.is_traced((levels, s_churn, s_min, s_max, s_noise)):
    raise TypeError(
      "churn needs a concrete grid and numbers, since it compares levels with "
      "s_min and s_max: make the tableau outside jit"
    )
  s_churn = per_step.numbers("s_churn", s_churn, levels)
  for name, value in dict(s_min=s_min, s_noise=s_noise).items():
    checks.number(name, value, "finite and >= 0", lambda v: 0 <= v < math.inf)
  checks.number("s_max", s_max, f">= s_min = {s_min}", lambda v: v >= s_min)
  checks.no_noise_backwards(levels, s_churn)
  s, _ = co.steps(levels)
  some = s.alpha > 0.0  # pure noise cannot be noisier
  sigma = np.where(some, s.sigma / np.where(some, s.alpha, 1.0), np.inf)
  room = 1e-12 * np.where(some, sigma, 0.0)  # s_min or s_max itself is inside
  inside = some & (sigma >= s_min - room) & (sigma <= s_max + room)
  most = math.sqrt(2.0) - 1.0
  return np.where(inside, np.minimum(s_churn / len(sigma), most), 0.0)


def edm(levels, s_churn=0.0, s_min=0.0, s_max=math.inf, s_noise=1.0):
  """EDM's stochastic sampler, arXiv:2206.00364 Alg. 2; order 2.

      gamma_i = min(s_churn/N, √2 - 1) where sigma_i in [s_min, s_max], else 0
      sigma^ = (1 + gamma) sigma_i,  y^ = y + s_noise √(sigma^² - sigma_i²) xi

  and a step of Heun's in sigma from sigma^ to sigma_{i+1}; y = z/alpha, sigma
  is sigma/alpha. The step to sigma = 0 is Euler's. s_min and s_max are the
  paper's S_tmin and S_tmax. For churn before another solver see `churned`.

  Equation (churn) of docs/math. Equation (runge_kutta) of docs/math.

  Args:
    levels: concrete grid, (N+1,), with alpha[0] > 0.
    s_churn, s_min, s_max, s_noise: as in the paper; s_churn = 0 is `heun` with
      coordinate="sigma". s_churn may differ by step, as any eta: `per_step`.
  Returns:
    Tableau of 2N evaluations, 2N - 1 if sigma[-1] = 0; keeps 2 predictions.
  Raises:
    TypeError: the grid is traced.
    ValueError: a number is negative or NaN, s_min > s_max, or there is churn on
      a grid from data to noise.
  """
  gamma = _gamma(levels, s_churn, s_min, s_max, s_noise)
  sigma = coordinates.times(levels, "sigma")
  hat = (1.0 + gamma) * sigma[:-1]
  full = len(hat) - (sigma[-1] == 0.0)
  ways = ((butcher.HEUN, slice(full)), (butcher.EULER, slice(full, None)))
  blocks = [stages(np, rule, hat[i], sigma[1:][i], 2) for rule, i in ways]
  mix, when, step = flat(np, *blocks)
  path = coordinates.at("sigma", sigma)
  mix = np.concatenate([co.identity_row(2)[None], mix])
  mix = coordinates.on_path(levels, path, mix)
  starts = np.searchsorted(step, np.arange(len(hat)))
  added = s_noise * np.sqrt(hat**2 - sigma[:-1] ** 2)
  mix[starts, :, -1] = added[:, None]
  where = coordinates.at("sigma", when)
  return co.tableau(levels, mix, co.EPS, where, step)


def churned(
  levels, solver="heun", s_churn=0.0, s_min=0.0, s_max=math.inf, s_noise=1.0
):
  """Churn before each step of any solver, as `edm` has it before Heun's.

  The solver starts anew where noise is added: a multistep solver has no history
  there, and takes a step of its first order.

  Equation (churn) of docs/math.

  Args:
    levels: concrete grid, (N+1,).
    solver: levels -> Tableau, or a name in SOLVERS.
    s_churn, s_min, s_max, s_noise: as of `edm`; pure noise gets no churn.
  Returns:
    Tableau of the solver's evaluations and kept predictions.
  Raises:
    TypeError, ValueError: as `edm`, or there is no solver of that name.
  """
  gamma = _gamma(levels, s_churn, s_min, s_max, s_noise)
  if isinstance(solver, str):
    from diffflow_jax.sampling import solvers

    solver = solvers.named(solver)
  levels = without_clock(levels)
  starts = np.union1d([0], np.flatnonzero(gamma))
  tables = []
  for i, end in zip(starts, [*starts[1:], len(gamma)], strict=True):
    logsnr, alpha, sigma = (
      np.array(f[i : end + 1], np.float64)
      for f in (levels.logsnr, levels.alpha, levels.sigma)
    )
    sigma[0] *= 1.0 + gamma[i]
    logsnr[0] -= 2.0 * np.log1p(gamma[i])
    tables.append(solver(Level(logsnr, alpha, sigma)))
  gamma, sigma = gamma[starts], levels.sigma[starts]
  added = s_noise * sigma * np.sqrt(gamma * (2.0 + gamma))
  table = compose.chain(tables, np.ones(len(starts)), added)
  return table.replace(start=levels[0])
