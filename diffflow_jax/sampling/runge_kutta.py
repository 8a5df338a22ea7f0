"""Runge-Kutta methods on any coordinate, and EDM's sampler with churn.

    k_j = u(z_s + Δt Σ_{l<j} a_jl k_l, t_s + c_j Δt)
    z_t = z_s + Δt Σ_j b_j k_j

with Δt = t_t - t_s < 0 on the path of `coordinate`. A stage is one row of the
tableau: the anchor holds z_s, and the k_j are the kept predictions.
"""

import math

import numpy as np

from diffflow_jax.sampling import coefficients as co, coordinates

# c, and the rows of a with b as the last one
EULER = ((0.0,), ((), (1.0,)))
HEUN = ((0.0, 1.0), ((), (1.0,), (0.5, 0.5)))
MIDPOINT = ((0.0, 0.5), ((), (0.5,), (0.0, 1.0)))
RK4 = (
  (0.0, 0.5, 0.5, 1.0),
  ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
)


def _ends_clean(levels):
  """Whether the last level is sigma = 0; a traced one is taken to be."""
  return co.namespace(levels) is co.jnp or float(levels.sigma[-1]) == 0.0


def _step_rows(xp, butcher, dt, num_kept):
  """Mixing rows of one step after its first evaluation: stages, then update."""
  rows = []
  for weights in butcher[1][1:]:
    h = [dt * w for w in reversed(weights)]  # newest first
    row = co.columns(xp, num_kept, anchor=1.0, h=h)
    stay = co.columns(xp, num_kept, anchor=1.0)
    update = len(weights) == len(butcher[0])
    rows.append(xp.stack([row if update else stay, row]))
  return rows


def runge_kutta(levels, butcher, last, coordinate):
  """The Tableau of a Butcher table; `last` takes the step to sigma = 0."""
  xp = co.namespace(levels)
  schedule_t = coordinates.times(levels, coordinate)
  n, num_kept = schedule_t.shape[0] - 1, len(butcher[0])
  ends = coordinates.at(coordinate, schedule_t)
  clean = _ends_clean(levels)
  mix = [xp.asarray(co.identity_row(num_kept))]
  mix[0] = mix[0] * coordinates.gain(levels[0], ends[0])
  when = []
  for i in range(n):
    table = last if clean and i == n - 1 else butcher
    dt = schedule_t[i + 1] - schedule_t[i]
    out = coordinates.gain(ends[-1], levels[-1]) if i == n - 1 else 1.0
    rows = _step_rows(xp, table, dt, num_kept)
    rows[-1] = rows[-1] * out
    mix += rows
    when += [
      schedule_t[i + 1] if c == 1.0 else schedule_t[i] + c * dt
      for c in table[0]
    ]
  where = coordinates.at(coordinate, xp.stack(when))
  return co.tableau(levels, xp.stack(mix), (where.dalpha, where.dsigma), where)


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
    levels: grid from noise to data, (N+1,); a traced one must end at sigma = 0.
  Returns:
    Tableau of 2N evaluations, 2N - 1 if sigma[-1] = 0; keeps 2 predictions.
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
    levels: grid from noise to data, (N+1,); a traced one must end at sigma = 0.
  Returns:
    Tableau of 4N evaluations, 4N - 2 if sigma[-1] = 0; keeps 4 predictions.
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
    ValueError: s_churn is negative.
  """
  if s_churn < 0:
    raise ValueError(f"s_churn must be >= 0, not {s_churn:g}")
  sigma = coordinates.times(levels, "sigma")
  n = sigma.shape[0] - 1
  inside = (sigma >= s_min) & (sigma <= s_max)
  gamma = np.where(inside, min(s_churn / n, math.sqrt(2.0) - 1.0), 0.0)
  hat = (1.0 + gamma) * sigma
  added = s_noise * np.sqrt(hat**2 - sigma**2)
  ends = coordinates.at("sigma", sigma)
  mix = [co.identity_row(2) * coordinates.gain(levels[0], ends[0])]
  when = []
  for i in range(n):
    mix[-1][:, -1] = added[i]
    table = EULER if sigma[i + 1] == 0 else HEUN
    mix += _step_rows(np, table, sigma[i + 1] - hat[i], 2)
    when += [hat[i], sigma[i + 1]][: len(table[0])]
  mix[-1] = mix[-1] * coordinates.gain(ends[-1], levels[-1])
  where = coordinates.at("sigma", np.stack(when))
  return co.tableau(levels, np.stack(mix), co.EPS, where)
