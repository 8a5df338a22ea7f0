"""The SDE and ODE view: (f, g, eta) <-> (alpha, sigma, e).

    dz = f z dt + g dw            the forward process of a path on its scale
    f = dalpha/alpha,   g² = 2 sigma (alpha dsigma - sigma dalpha)/alpha
    alpha = exp ∫f,     sigma = alpha √(sigma_0²/alpha_0² + ∫ g²/alpha²)

Every diffusion coefficient e >= 0 keeps the marginals, e = eta g:

    generation, t falling:   dz = (u - ½ e² s) dt + e dw
    noising, t rising:       dz = (u + ½ e² s) dt + e dw

and in the lecture's time tau = 1 - t, from noise to data, generation reads

    dX = (u_lec + ½ e² s) dtau + e dw,      u_lec = -u

with u the flow velocity and s the score (Song et al., arXiv:2011.13456 eq. 6
and 13; Albergo et al., arXiv:2303.08797). eta = 0 is the probability-flow ODE
and eta = 1 the reverse of (f, g). u and s are rows of one prediction: convert
them with `targets.convert(y, z, lv, targets.score, targets.u)`.

f, g, e and `drift` are of t: give them a `level` or `at_logsnr`. At a
`lecture_level`, whose clock runs backwards, g² would be negative and eta NaN:
use `lecture_drift`.
"""

import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import levels, targets
from diffflow_jax.process.levels import bcast
from diffflow_jax.process.schedule import lifted

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


def drift_diffusion(lv):
  """(f, g²) at a Level with a clock; infinite where alpha = 0.

  Equation (field) of docs/math.
  """
  sigma = lifted(lv.sigma, lv.dsigma)
  delta = lv.alpha * lv.dsigma - sigma * lv.dalpha
  return lv.dalpha / lv.alpha, 2.0 * sigma * delta / lv.alpha


def noise_rate(lv, eta):
  """e = eta g: the diffusion coefficient of a stochasticity eta.

  Equation (sde) of docs/math.
  """
  return eta * jnp.sqrt(drift_diffusion(lv)[1])


def stochasticity(lv, e):
  """eta = e/g, the inverse of `noise_rate`. Equation (sde) of docs/math."""
  return e / jnp.sqrt(drift_diffusion(lv)[1])


def _mean_over(fn, t):
  """∫_0^t fn dt' by Gauss-Legendre; fn takes an extra trailing axis."""
  x, w = 0.5 * (_NODES + 1.0), 0.5 * _WEIGHTS
  return t * jnp.sum(fn(t[..., None] * x) * w, axis=-1)


def from_sde(f, g2, t, start=0.0):
  """(alpha, sigma) at times t of dz = f z dt + √g2 dw.

  By quadrature, exact to rounding for smooth f and g2. The two numbers are a
  pair: a schedule of any SDE is one line.

  Equation (from_sde) of docs/math.

  Args:
    f, g2: functions of t, elementwise; t: times, any shape.
    start: sigma/alpha at t = 0.
  """
  t = jnp.asarray(t, jnp.result_type(float, t))
  alpha = lambda t: jnp.exp(_mean_over(f, t))
  var = start**2 + _mean_over(lambda t: g2(t) / alpha(t) ** 2, t)
  return alpha(t), alpha(t) * jnp.sqrt(var)


def drift(x_hat, eps_hat, lv, e=0.0, noising=False):
  """u - ½ e² s of generation, u + ½ e² s if noising.

  Equation (sde) of docs/math.

  Args:
    x_hat, eps_hat: a prediction at lv, (batch, ...); e: () or (batch,).
  """
  u = targets.from_x_eps(targets.u, x_hat, eps_hat, lv)
  sign = 1.0 if noising else -1.0
  pull = bcast(sign * 0.5 * jnp.asarray(e) ** 2 / lv.sigma, eps_hat)
  return u - pull * eps_hat  # s = -ε̂/sigma


def lecture_drift(x_hat, eps_hat, schedule, scale, tau, e=0.0):
  """u_lec + ½ e² s: what generation follows as tau rises from 0 to 1.

  The SDE extension of Holderrieth & Erives, arXiv:2506.02070: -`drift` at the
  level of t = 1 - tau. e² is a variance per unit of either time.

  Equation (sde) of docs/math.

  Args:
    x_hat, eps_hat: a prediction at that level, (batch, ...); tau, e: () or
      (batch,).
  """
  lv = levels.level(schedule, scale, 1.0 - jnp.asarray(tau))
  return -drift(x_hat, eps_hat, lv, e)


def conditional_field(z, x, lv):
  """u(z | x) = (dsigma/sigma)(z - alpha x) + dalpha x.

  Lipman et al., arXiv:2210.02747 Thm 3: the velocity of the Gaussian path that
  ends in one x. Theirs runs in tau = 1 - t: pass a `levels.lecture_level`.

  Equation (conditional) of docs/math.
  """
  rate = bcast(lv.dsigma / lv.sigma, z)
  return rate * (z - bcast(lv.alpha, z) * x) + bcast(lv.dalpha, z) * x
