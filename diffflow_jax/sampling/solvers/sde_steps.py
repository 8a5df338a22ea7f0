"""Steps of an SDE as tableaus: Euler-Maruyama, and Langevin corrections.

Unlike the exponential solvers these discretise drift and noise as they are, so
their steps must stay small against what they move.
"""

import numpy as np

from diffflow_jax.process import levels as levels_lib
from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co, coordinates
from diffflow_jax.sampling.solvers.sde_solvers import ddim


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
    ValueError: eta or epsilon is negative, or there is noise on a grid from
      data to noise.
  """
  xp = co.namespace((levels, eta, epsilon))
  name, size = ("eta", eta) if epsilon is None else ("epsilon", epsilon)
  checks.number(name, size, "finite and >= 0", lambda e: 0 <= e < xp.inf)
  checks.no_noise_backwards(levels, size)
  clock = coordinates.times(levels, coordinate)
  path = coordinates.at(coordinate, clock)
  s, dt = path[:-1], clock[1:] - clock[:-1]
  noisy = (s.alpha > 0) & (path.sigma[1:] > 0) & (dt < 0)
  slope = s.dalpha / xp.where(s.alpha > 0, s.alpha, 1.0)
  g = xp.sqrt(2.0 * s.sigma * (s.dsigma - s.sigma * slope))
  e = xp.where(noisy, eta * g if epsilon is None else epsilon, 0.0)
  noise = e * xp.sqrt(abs(dt))
  mix = co.one_evaluation_mix(xp, 1, xp.ones_like(dt), [dt], noise)
  mix = coordinates.on_path(levels, path, mix)
  pull = 0.5 * e**2 / xp.where(s.sigma > 0, s.sigma, 1.0)
  return co.tableau(levels, mix, (s.dalpha, s.dsigma + pull), s)


def langevin(levels, num_corrections=1, step=0.1, eta=0.0):
  """Predictor-corrector, arXiv:2011.13456 Alg. 1, with a fixed relative step.

  Each DDIM(eta) step but the last is followed, at the level where it arrives,
  by num_corrections steps of Langevin dynamics of size step sigma²:

      z <- z - step sigma ε̂ + √(2 step) sigma xi

  Its stationary law is off by O(step).

  Args:
    levels: grid from noise to data, (N+1,).
    num_corrections: >= 0, 0 is `ddim`; step: in (0, 1], well below 1.
    eta: of the DDIM steps.
  Returns:
    Tableau of N + (N-1) num_corrections evaluations; keeps 1 prediction.
  Raises:
    ValueError: num_corrections, step or eta is out of range, or there is noise
      on a grid from data to noise.
  """
  checks.integer("num_corrections", num_corrections, 0)
  checks.number("step", step, "in (0, 1]", lambda s: 0 < s <= 1)
  checks.no_noise_backwards(levels, num_corrections)
  move = ddim(levels, eta)
  m, n = num_corrections, move.mix.shape[0] - 1
  xp = co.namespace((move, step))
  sigma = move.levels.sigma[1:]
  fix = co.columns(
    xp, 1, z=1.0, h=[-step * sigma], noise=xp.sqrt(2.0 * step) * sigma
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
