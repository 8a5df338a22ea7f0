"""Runge-Kutta methods on any coordinate, and EDM's sampler with churn.

    k_j = u(z_s + Δt Σ_{l<j} a_jl k_l, t_s + c_j Δt)
    z_t = z_s + Δt Σ_j b_j k_j

with Δt = t_t - t_s < 0 on the path of `coordinate`. A stage is one row of the
tableau: the anchor holds z_s, and the k_j are the kept predictions.
"""

import math

import numpy as np

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co, coordinates

# c, and the rows of a with b as the last one
EULER = ((0.0,), ((), (1.0,)))
HEUN = ((0.0, 1.0), ((), (1.0,), (0.5, 0.5)))
MIDPOINT = ((0.0, 0.5), ((), (0.5,), (0.0, 1.0)))
RK4 = (
  (0.0, 0.5, 0.5, 1.0),
  ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
)


def _rows(xp, weights, dt, num_kept):
  """Mixing rows of one step after its first evaluation: stages, then update.

  Args:
    weights: the rows of a after the first, and b.
  """
  stay, rows = co.columns(xp, num_kept, anchor=1.0), []
  for weight in weights:
    h = [dt * w for w in reversed(weight)]  # newest first
    row = co.columns(xp, num_kept, anchor=1.0, h=h)
    rows.append(xp.stack([stay, row]))
  return [*rows[:-1], xp.stack([row, row])]


def _either(xp, clean, last, butcher):
  """The weights of `last` where clean, else those of `butcher`, equally many.

  Of a traced grid it is not known whether its last step arrives at sigma = 0:
  all stages stay, and those that `last` does not have get weight 0.
  """
  *stages, b = butcher[1]
  short = (*last[1][-1], *[0.0] * (len(b) - len(last[1][-1])))
  pairs = zip(short, b, strict=True)
  return (*stages, tuple(xp.where(clean, *pair) for pair in pairs))


def runge_kutta(levels, butcher, last, coordinate):
  """The Tableau of a Butcher table; `last` takes the step to sigma = 0.

  Args:
    last: butcher, or a table whose stages are the first ones of butcher.
  """
  xp = co.namespace(levels)
  time = coordinates.times(levels, coordinate)
  n, num_kept = time.shape[0] - 1, len(butcher[0])
  clean = levels.sigma[-1] == 0.0
  mix, when = [xp.asarray(co.identity_row(num_kept))], []
  for i in range(n):
    (c, weights), arrive = butcher, time[i + 1]
    dt = arrive - time[i]
    if i == n - 1 and last != butcher:
      if xp is np:
        c, weights = last if clean else butcher
      else:  # nothing is evaluated at sigma = 0
        weights = _either(xp, clean, last, butcher)
        arrive = xp.where(clean, time[i] + 0.5 * dt, arrive)
    mix += _rows(xp, weights[1:], dt, num_kept)
    when += [arrive if d == 1.0 else time[i] + d * dt for d in c]
  path = coordinates.at(coordinate, time)
  where = coordinates.at(coordinate, xp.stack(when))
  mix = coordinates.on_path(levels, path, xp.stack(mix))
  return co.tableau(levels, mix, (where.dalpha, where.dsigma), where)


def euler(levels, coordinate="flow"):
  """Euler's method on dz = u dt; order 1.

  On "flow", "sigma" and "angle" it differs from DDIM on "angle" only: Euler in
  flow time and in sigma are DDIM (arXiv:2010.02502 eq. 13) exactly.

  Args:
    levels: grid from noise to data, (N+1,); coordinate: see `coordinates`.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  """
  return runge_kutta(levels, EULER, EULER, coordinate)


def heun(levels, coordinate="flow"):
  """Heun's method on dz = u dt; order 2.

      z* = z_s + Δt u_s,   z_t = z_s + ½ Δt (u_s + u*)

  A step that arrives at sigma = 0 is Euler's, as in EDM's Algorithm 1
  (arXiv:2206.00364): there is nothing left to predict there.

  Args:
    levels: grid from noise to data, (N+1,).
  Returns:
    Tableau of 2N evaluations, 2N - 1 if sigma[-1] = 0 and the grid is not
    traced; keeps 2 predictions.
  """
  return runge_kutta(levels, HEUN, EULER, coordinate)


def midpoint(levels, coordinate="flow"):
  """The midpoint method, z_t = z_s + Δt u(z_s + ½ Δt u_s, t_s + ½ Δt); order 2.

  Args:
    levels: grid from noise to data, (N+1,); both exact ends are fine.
  Returns:
    Tableau of 2N evaluations that keeps 2 predictions.
  """
  return runge_kutta(levels, MIDPOINT, MIDPOINT, coordinate)


def rk4(levels, coordinate="flow"):
  """The classical Runge-Kutta method on dz = u dt; order 4.

  A step that arrives at sigma = 0 is the midpoint method's, which does not
  evaluate there.

  Args:
    levels: grid from noise to data, (N+1,).
  Returns:
    Tableau of 4N evaluations, 4N - 2 if sigma[-1] = 0 and the grid is not
    traced; keeps 4 predictions.
  """
  return runge_kutta(levels, RK4, MIDPOINT, coordinate)


def edm(levels, s_churn=0.0, s_min=0.0, s_max=math.inf, s_noise=1.0):
  """EDM's stochastic sampler, arXiv:2206.00364 Alg. 2; order 2.

      gamma_i = min(s_churn/N, √2 - 1) where sigma_i in [s_min, s_max], else 0
      sigma^ = (1 + gamma) sigma_i,  y^ = y + s_noise √(sigma^² - sigma_i²) xi

  and a step of Heun's in sigma from sigma^ to sigma_{i+1}; y = z/alpha, sigma
  is sigma/alpha. The step to sigma = 0 is Euler's.

  Args:
    levels: concrete grid, (N+1,), with alpha[0] > 0.
    s_churn, s_min, s_max, s_noise: as in the paper; s_churn = 0 is `heun` with
      coordinate="sigma".
  Returns:
    Tableau of 2N evaluations, 2N - 1 if sigma[-1] = 0; keeps 2 predictions.
  Raises:
    TypeError: the grid is traced.
    ValueError: a number is negative or NaN, s_min > s_max, or there is churn on
      a grid from data to noise.
  """
  if checks.is_traced((levels, s_churn, s_min, s_max, s_noise)):
    raise TypeError(
      "edm needs a concrete grid and churn, since it compares levels with "
      "s_min and s_max: make the tableau outside jit"
    )
  for name, value in dict(
    s_churn=s_churn, s_min=s_min, s_noise=s_noise
  ).items():
    checks.number(name, value, "finite and >= 0", lambda v: 0 <= v < math.inf)
  checks.number("s_max", s_max, f">= s_min = {s_min}", lambda v: v >= s_min)
  checks.no_noise_backwards(levels, s_churn)
  sigma = coordinates.times(levels, "sigma")
  n = sigma.shape[0] - 1
  room = 1e-12 * sigma  # a level that is s_min or s_max itself is inside
  inside = (sigma >= s_min - room) & (sigma <= s_max + room)
  gamma = np.where(inside, min(s_churn / n, math.sqrt(2.0) - 1.0), 0.0)
  hat = (1.0 + gamma) * sigma
  added = s_noise * np.sqrt(hat**2 - sigma**2)
  mix, when, rows = [co.identity_row(2)], [], []
  for i in range(n):
    rows.append(len(mix) - 1)  # the row that ends at level i
    c, weights = EULER if sigma[i + 1] == 0 else HEUN
    mix += _rows(np, weights[1:], sigma[i + 1] - hat[i], 2)
    when += [hat[i], sigma[i + 1]][: len(c)]
  path = coordinates.at("sigma", sigma)
  mix = coordinates.on_path(levels, path, np.stack(mix))
  mix[rows, :, -1] = added[:n, None]
  where = coordinates.at("sigma", np.stack(when))
  return co.tableau(levels, mix, co.EPS, where)
