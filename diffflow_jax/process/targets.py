"""Targets: what a network predicts is one row, y = a x + b eps.

    target   a                  b                     paper
    x        1                  0                     arXiv:2202.00512
    eps      0                  1                     arXiv:2006.11239
    v        -sigma             alpha                 arXiv:2202.00512 §4
    u        dalpha/dt          dsigma/dt             arXiv:2210.02747
    flow     -1                 1                     arXiv:2403.03206
    score    0                  -1/sigma              arXiv:2011.13456
    F        sigma/(S s_d)      -alpha s_d/S          arXiv:2206.00364 eq. 7

with S² = alpha² s_d² + sigma² and s_d = sigma_data. u = dz/dt is the flow
velocity with t = 0 at the data: flow-matching papers that count from noise to
data write -u, and most call it v. Our v is Salimans & Ho's alpha eps - sigma x.

Everything else follows from the rows and z = alpha x + sigma eps: a target is
any function Level -> (a, b), and one 2x2 solve is every conversion.
"""

from typing import Any

import jax.numpy as jnp

from diffflow_jax.process import ranges
from diffflow_jax.process.levels import bcast
from diffflow_jax.process.names import with_numbers


def x(lv):
  """The data: y = x. Equation (row) of docs/math."""
  return jnp.ones_like(lv.alpha), jnp.zeros_like(lv.alpha)


def eps(lv):
  """The noise: y = eps. Equation (row) of docs/math."""
  return jnp.zeros_like(lv.alpha), jnp.ones_like(lv.alpha)


def v(lv):
  """y = alpha eps - sigma x. Equation (row) of docs/math."""
  return -lv.sigma, lv.alpha


def u(lv):
  """The velocity y = dz/dt = dalpha x + dsigma eps; needs a level with a clock.

  Equation (row) of docs/math.

  Raises:
    ValueError: the level carries no dalpha, dsigma.
  """
  if lv.dalpha is None:
    raise ValueError(
      "target u = dz/dt needs a level with a clock, which a sampler's have "
      "not: make it with level(schedule, scale, t) or at_logsnr(scale, logsnr, "
      "schedule); to sample, wrap a network by dfj.predictor, whose objective "
      "has one, or take target flow, which needs none, for rectified flow's"
    )
  return lv.dalpha, lv.dsigma


def flow(lv):
  """y = eps - x: u of the flow schedule in its own time, whatever the clock.

  Equation (row) of docs/math.
  """
  return -jnp.ones_like(lv.alpha), jnp.ones_like(lv.alpha)


def score(lv):
  """y = grad log p(z | x) = -eps/sigma. Equation (row) of docs/math."""
  return jnp.zeros_like(lv.sigma), -1.0 / lv.sigma


@ranges.node
class F:
  """EDM's network output: x̂ = c_skip z + c_out F, of unit variance.

  On any scale; EDM's coefficients are those of z/alpha, sigma/alpha. With
  sigma_data = 1 on vp, F = -v.

  Equation (row) of docs/math.
  """

  sigma_data: Any = 0.5
  _allowed = {"sigma_data": "> 0"}

  def __call__(self, lv):
    s = jnp.sqrt((lv.alpha * self.sigma_data) ** 2 + lv.sigma**2)
    return lv.sigma / (s * self.sigma_data), -lv.alpha * self.sigma_data / s


def determinant(target, lv):
  """D = alpha b - sigma a; ‖ŷ - y‖ = |D/alpha| ‖ε̂ - ε‖ = |D/sigma| ‖x̂ - x‖.

  Equation (solve) of docs/math.
  """
  a, b = target(lv)
  return lv.alpha * b - lv.sigma * a


def solve(target, lv):
  """(x from z, x from y, eps from z, eps from y): one pivoted 2x2 solve.

      y = a x + b eps,  z = alpha x + sigma eps

  Eliminating with the larger of a, b keeps infinite rows (score at sigma = 0)
  exact. Where y says nothing of x (eps at alpha = 0) or of eps (x at
  sigma = 0), that one is 0, its mean for centred data.

  Equation (solve) of docs/math.
  """
  a, b = target(lv)
  on_b = jnp.abs(b) >= jnp.abs(a)
  pivot = jnp.where(on_b, b, a)
  rest = jnp.where(on_b, a, b) / pivot
  # with the pivot's variable p and the other one q: y/pivot = p + rest q
  z_p = jnp.where(on_b, lv.sigma, lv.alpha)
  z_q = jnp.where(on_b, lv.alpha, lv.sigma)
  den = z_q - z_p * rest
  singular = den == 0.0
  r = jnp.where(singular, 0.0, 1.0 / jnp.where(singular, 1.0, den))
  q_z, q_y = r, -z_p * r / pivot
  p_z, p_y = -rest * r, jnp.where(singular, 1.0, z_q * r) / pivot
  return (
    jnp.where(on_b, q_z, p_z),
    jnp.where(on_b, q_y, p_y),
    jnp.where(on_b, p_z, q_z),
    jnp.where(on_b, p_y, q_y),
  )


def to_x_eps(target, y, z, lv):
  """(x̂, ε̂) of a prediction ŷ at state z: x = (b z - σ y)/D, ε = (α y - a z)/D.

  Equation (solve) of docs/math.

  Args:
    target: row Level -> (a, b); y, z: (batch, ...); lv: fields () or (batch,).
  """
  x_z, x_y, eps_z, eps_y = (bcast(c, z) for c in solve(target, lv))
  return x_z * z + x_y * y, eps_z * z + eps_y * y


def from_x_eps(target, x_hat, eps_hat, lv):
  """ŷ = a x̂ + b ε̂, where an infinite row times an exact zero is zero.

  The score's b is -inf at sigma = 0: a prediction that knows no eps there (x)
  gives score 0, not NaN.

  Equation (row) of docs/math.
  """
  a, b = target(lv)
  return _times(a, x_hat) + _times(b, eps_hat)


def _times(c, y):
  c = bcast(c, y)
  # finite c are left alone: at y = 0 they are still the derivative
  return jnp.where(jnp.isinf(c) & (y == 0.0), 0.0, c) * y


def convert(y, z, lv, source, wanted):
  """The prediction ŷ of target `source` at (z, lv), as target `wanted`.

  Equation (solve) of docs/math.
  """
  if source is wanted:  # exact, also where the score's row is infinite
    return y
  return from_x_eps(wanted, *to_x_eps(source, y, z, lv), lv)


TARGETS = {
  "x": x,
  "eps": eps,
  "v": v,
  "u": u,
  "flow": flow,
  "score": score,
  "F": F(),
}


def make(name, **numbers):
  """The row of a name: make("v"), make("F", sigma_data=0.7).

  Raises:
    ValueError: an unknown name, or a number that the row does not have.
  """
  return with_numbers(TARGETS, "target", name, numbers)
