"""Inverse problems: wrappers of predict that hold x̂ to what was measured."""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.process import predictors
from diffflow_jax.process.faces import Wrapper
from diffflow_jax.process.levels import bcast
from diffflow_jax.sampling.guidance.wrappers import (
  as_floats,
  at_one_level,
  with_x,
  wrapper,
)


@wrapper
class Replaced(Wrapper):
  """Inpainting by replacement: x̂ is the known data where mask is 1.

      x̂ <- mask known + (1 - mask) x̂,   ε̂ to match

  The projection of arXiv:2212.00490 (DDNM) for a mask; with a stochastic solver
  the known part of the state is the known data plus fresh noise.

  Equation (replaced) of docs/math.

  Attributes:
    predict: what is constrained; known, mask: broadcast to x̂.
  """

  predict: Any
  known: Any
  mask: Any

  def at(self, row, z, cond=None):
    lv, inner = row
    x_hat, eps_hat = predictors.at(self.predict, inner, z, cond)
    new = self.mask * self.known + (1.0 - self.mask) * x_hat
    return with_x(new, x_hat, eps_hat, lv)


@wrapper
class Measured(Wrapper):
  """Posterior guidance for y = forward(x) + noise_std n, forward linear.

      x̂ <- x̂ + (sigma²/alpha) ∇_z log N(y; forward(x̂(z)), noise_std² + r²)
      r² = data_std² sigma²/(alpha² data_std² + sigma²)

  the variance of x given z if Var x = data_std² (arXiv:2305.04391 §3.3, with
  their r). Exact for Gaussian data if forward forwardᵀ = I, as for a mask or an
  average in an orthonormal basis. alpha = 0 adds nothing.

  Equation (measured) of docs/math.

  Attributes:
    predict: what is guided; y: the measurement, leading axis batch.
    noise_std, data_std: as above.
    forward: x (batch, ...) -> (batch, ...), linear.

  Raises:
    ValueError: when called, a flow map goes to another level.
  """

  predict: Any
  y: Any
  noise_std: Any
  data_std: Any = 1.0
  forward: Callable = struct.field(pytree_node=False, default=lambda x: x)
  _allowed = {"noise_std": ">= 0", "data_std": "> 0"}

  def __post_init__(self):
    as_floats(self, "noise_std", "data_std")

  def prepare(self, lv):
    at_one_level(lv)
    return lv, predictors.prepare(self.predict, lv)

  def at(self, row, z, cond=None):
    lv, inner = row
    a2, s2 = (lv.alpha * self.data_std) ** 2, lv.sigma**2
    var = self.noise_std**2 + self.data_std**2 * s2 / (a2 + s2)

    def measured(z):
      x_hat, eps_hat = predictors.at(self.predict, inner, z, cond)
      return self.forward(x_hat), (x_hat, eps_hat)

    got, pull, (x_hat, eps_hat) = jax.vjp(measured, z, has_aux=True)
    off = (self.y - got) / bcast(var, got)
    some = lv.alpha > 0
    gain = jnp.where(some, s2 / jnp.where(some, lv.alpha, 1.0), 0.0)
    (grad,) = pull(off.astype(got.dtype))
    return with_x(x_hat + bcast(gain, z) * grad, x_hat, eps_hat, lv)
