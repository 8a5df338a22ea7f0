"""Steps of an SDE: Euler-Maruyama, SiT's Heun, Langevin corrections.

Unlike the exponential solvers these discretise drift and noise as they are, so
their steps must stay small against what they move. The reverse SDE

    dz = (u - ½ e² score) dt + e dw,   e = eta g  or  e = epsilon
    g² = 2 sigma (dsigma - sigma dalpha/alpha)

is that of the path of `coordinate`, which fixes both the clock and the drift.
The marginals are those of the path for every e (arXiv:2303.08797). A step from
alpha = 0, where g is infinite, follows u. A step to sigma = 0 draws no noise,
and is one of SiT's (arXiv:2401.08740 app.):

    "euler"    z_t = z_s + u dt
    "mean"     z_t = z_s + (u - ½ e² score) dt
    "tweedie"  z_t = alpha_t x̂, which is "euler" on flow
"""

import numpy as np

from diffflow_jax.process import levels as levels_lib
from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import (
  coefficients as co,
  coordinates,
  per_step,
)
from diffflow_jax.sampling.solvers.sde_solvers import ddim

LAST_STEPS = ("euler", "mean", "tweedie")


class _Reverse:
  """The reverse SDE along a grid: what both its solvers need, by step.

  Attributes:
    path: Levels (N+1,) on the path, with a clock; dt: (N,).
    clean: (N,), whether a step arrives at sigma = 0.
    noise: (N,), e √|dt|, and none in a step to sigma = 0.
  """

  def __init__(self, levels, eta, epsilon, coordinate, last_step):
    if last_step not in LAST_STEPS:
      raise ValueError(
        f"last_step must be one of {LAST_STEPS}, not {last_step!r}"
      )
    self.clock = coordinates.times(levels, coordinate)
    checks.grid(levels, backwards=True)
    if eta is not None and epsilon is not None:
      raise ValueError(
        f"give eta or epsilon, not both: eta is {eta} and epsilon {epsilon}"
      )
    eta = 1.0 if eta is None else eta
    name, size = ("eta", eta) if epsilon is None else ("epsilon", epsilon)
    self.size = per_step.numbers(name, size, levels)
    self.by_g = epsilon is None
    checks.no_noise_backwards(levels, self.size)
    self.xp = co.namespace((levels, self.size))
    self.path = coordinates.at(coordinate, self.clock)
    self.dt = self.clock[1:] - self.clock[:-1]
    self.clean = self.path.sigma[1:] == 0.0
    self.last_step = last_step
    e = self.e(self.path[:-1])
    self.noise = self.xp.where(self.clean, 0.0, e * self.xp.sqrt(abs(self.dt)))

  def e(self, lv):
    """The diffusion of each step at levels (N,); 0 in a step from alpha = 0."""
    xp, some = self.xp, lv.alpha > 0
    slope = lv.dalpha / xp.where(some, lv.alpha, 1.0)
    g = xp.sqrt(2.0 * lv.sigma * (lv.dsigma - lv.sigma * slope))
    noisy = (self.path.alpha[:-1] > 0) & (self.dt < 0)
    return xp.where(noisy, self.size * g if self.by_g else self.size, 0.0)

  def drift(self, lv):
    """(a, b) of the drift a x̂ + b ε̂ at levels (N,)."""
    pull = 0.5 * self.e(lv) ** 2 / self.xp.where(lv.sigma > 0, lv.sigma, 1.0)
    return lv.dalpha, lv.dsigma + pull

  def one(self):
    """(z's weight, h's, (a, b)) of steps with one evaluation, (N,) each.

    Before sigma = 0 they are Euler's, with the noise left out.
    """
    xp, s = self.xp, self.path[:-1]
    a, b = self.drift(s)
    if self.last_step == "euler":
      b = xp.where(self.clean, s.dsigma, b)
    z, h = xp.ones_like(self.dt), self.dt
    if self.last_step == "tweedie":
      z, h = xp.where(self.clean, 0.0, z), xp.where(self.clean, 1.0, h)
      a = xp.where(self.clean, self.path.alpha[1:], a)
      b = xp.where(self.clean, 0.0, b)
    return z, h, (a, b)


def euler_maruyama(
  levels, eta=None, epsilon=None, coordinate="flow", last_step="euler"
):
  """Euler-Maruyama for the reverse SDE, arXiv:2011.13456 eq. 6; weak order 1.

      z_t = z_s + (u - ½ e² score) dt + e √|dt| xi,   e = eta g  or  e = epsilon

  g² dt must stay small against sigma²: the exponential `sde_dpmpp_1` does not
  need that, and is what to use otherwise.

  Equation (euler_maruyama) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    eta: of e = eta g, 1 if neither is given; epsilon: e itself, instead. Either
      is one number, one for each step, or a function of the level that a step
      leaves from.
    coordinate: the path; last_step: what arrives at sigma = 0, as above.
  Returns:
    Tableau of N evaluations that keeps 1 prediction.
  Raises:
    ValueError: eta or epsilon is negative, both are given, there is no such
      last step, or there is noise on a grid from data to noise.
  """
  sde = _Reverse(levels, eta, epsilon, coordinate, last_step)
  z, h, target = sde.one()
  mix = co.one_evaluation_mix(sde.xp, 1, z, [h], sde.noise)
  mix = coordinates.on_path(levels, sde.path, mix)
  return co.tableau(levels, mix, target, sde.path[:-1])


def stochastic_heun(
  levels, eta=None, epsilon=None, coordinate="flow", last_step="euler"
):
  """SiT's Heun for the reverse SDE, arXiv:2401.08740 app.; weak order 1.

      z^ = z_s + e_s √|dt| xi
      z* = z^ + dt d(z^, s),   z_t = z^ + ½ dt (d(z^, s) + d(z*, t))

  with the drift d = u - ½ e² score, whose noise comes first. A step to
  sigma = 0 has one evaluation.

  Equation (stochastic_heun) of docs/math.

  Args:
    levels, eta, epsilon, coordinate, last_step: as of `euler_maruyama`.
  Returns:
    Tableau of 2N evaluations, 2N - 1 if sigma[-1] = 0 and the grid is not
    traced; keeps 2 predictions.
  Raises:
    ValueError: as `euler_maruyama`.
  """
  sde = _Reverse(levels, eta, epsilon, coordinate, last_step)
  xp, clean, dt = sde.xp, sde.clean, sde.dt
  n = dt.shape[0]
  z, h, (a, b) = sde.one()
  # a traced grid keeps the second stage of a step to sigma = 0, for nothing
  arrive = xp.where(clean, sde.clock[:-1] + 0.5 * dt, sde.clock[1:])
  there = coordinates.at(coordinate, arrive)
  a_t, b_t = sde.drift(there)
  stay = co.columns(xp, 2, anchor=xp.ones_like(dt))
  stage = co.columns(xp, 2, anchor=1.0, h=[dt])
  new = xp.where(clean, 0.0, 0.5 * dt)
  update = co.columns(xp, 2, anchor=z, h=[new, xp.where(clean, h, 0.5 * dt)])
  rows = xp.stack(
    [xp.stack([stay, stage], 1), xp.stack([update, update], 1)], 1
  )
  both = lambda one, two: xp.stack([one, two], 1).reshape(2 * n)
  at = levels_lib.Level(
    *(
      both(getattr(sde.path, f)[:-1], getattr(there, f))
      for f in ("logsnr", "alpha", "sigma")
    )
  )
  target, step = (both(a, a_t), both(b, b_t)), np.repeat(np.arange(n), 2)
  first = xp.asarray(co.identity_row(2))[None]
  mix = xp.concatenate([first, rows.reshape(2 * n, 2, -1)])
  if xp is np and clean[-1]:
    last = co.columns(np, 2, anchor=z[-1:], h=[h[-1:]])
    mix = np.concatenate([mix[:-2], np.stack([last, last], 1)])
    target, at, step = [c[:-1] for c in target], at[:-1], step[:-1]
  mix = coordinates.on_path(levels, sde.path, mix)
  # a step's noise is in the row before its first evaluation
  noise = xp.stack([sde.noise, 0.0 * sde.noise], 1).reshape(2 * n)
  noise = xp.concatenate([noise, xp.zeros(1)])[: mix.shape[0]]
  noise = xp.stack([noise, noise], 1)[..., None]
  mix = xp.concatenate([mix[..., :-1], noise], -1)
  return co.tableau(levels, mix, target, at, step)


def langevin(levels, num_corrections=1, step=0.1, eta=0.0):
  """Predictor-corrector, arXiv:2011.13456 Alg. 1, with a fixed relative step.

  Each DDIM(eta) step but the last is followed, at the level where it arrives,
  by num_corrections steps of Langevin dynamics of size step sigma²:

      z <- z - step sigma ε̂ + √(2 step) sigma xi

  Its stationary law is off by O(step).

  Equation (langevin) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,).
    num_corrections: >= 0, 0 is `ddim`; step: in (0, 1], well below 1.
    eta: of the DDIM steps, as there.
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
  step = np.cumsum(predicts) - 1.0  # a correction is of the step before it
  return move.replace(mix=mix, target=target, levels=at, step_of_row=step)
