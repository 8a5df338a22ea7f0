"""A Gaussian process on a line, whose exact prediction is known.

x (num, points, 1) ~ N(0, C) with places t in [0, 1] and

    C_ij = a² (exp(-(t_i - t_j)²/(2 l²)) + 1e-6 [i = j])

for a length scale l and an amplitude a, which may be conditions.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.data.toys import Points
from diffflow_jax.process import conditions, ranges
from diffflow_jax.process.levels import bcast

JITTER = 1e-6  # in units of a²: without it, float32 has no Cholesky factor
NAME = "parameters"  # of the condition


def covariance(places, scale, amplitude, xp=np):
  """C (..., points, points) of l and a (...), by NumPy or jax.numpy."""
  apart = (places[:, None] - places) / scale[..., None, None]
  near = xp.exp(-0.5 * apart**2) + JITTER * xp.eye(len(places))
  return amplitude[..., None, None] ** 2 * near


@struct.dataclass
class Process:
  """The exact predictor under a condition, or of one law.

  Attributes:
    places: (points,); low, high: (2,), the logs of (l, a) that -1 and 1 of the
      condition stand for; equal where there is only one law.
  """

  places: Any
  low: Any
  high: Any

  def scales(self, parameters, xp=np):
    """l and a (batch,) of conditions (batch, 2) in [-1, 1]."""
    middle, half = (self.high + self.low) / 2.0, (self.high - self.low) / 2.0
    return xp.moveaxis(xp.exp(middle + half * parameters), -1, 0)

  def __call__(self, z, lv, cond=None):
    """predict(z, lv, cond) -> (x̂, ε̂) for z (batch, points, 1).

    With S = alpha² C + sigma²: x̂ = alpha C S⁻¹ z, ε̂ = sigma S⁻¹ z.
    """
    parameters = jnp.zeros((z.shape[0], 2))
    if cond is not None:
      known = conditions.Condition("vector", (2,))
      parameters = conditions.as_given(known, cond[NAME]).value
    alpha, sigma = bcast(lv.alpha, z), bcast(lv.sigma, z)
    c = covariance(self.places, *self.scales(parameters, jnp), jnp)
    total = alpha**2 * c + sigma**2 * jnp.eye(c.shape[-1])
    pull = jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(total), True), z)
    return alpha * (c @ pull), sigma * pull


def gaussian_process(
  num_points=32, length_scale=(0.05, 0.5), amplitude=(0.3, 1.0)
):
  """Draws of Gaussian processes, and `parameters`: the law of each.

  Args:
    length_scale, amplitude: (low, high), which are drawn between uniformly in
      their logs and are the condition (2,) from -1 to 1; or two numbers, of one
      law that is no condition.
  Raises:
    ValueError: a range that is not positive and rising, or one range only.
  """
  ranges.check("num_points", num_points, "an integer >= 1")
  ends = [_ends(length_scale, "length_scale"), _ends(amplitude, "amplitude")]
  is_range = [np.ndim(given) > 0 for given in (length_scale, amplitude)]
  if is_range[0] != is_range[1]:
    raise ValueError(
      "length_scale and amplitude must be two ranges (low, high) or two "
      f"numbers, not {length_scale!r} and {amplitude!r}"
    )
  low, high = np.log(np.array(ends)).T
  places = np.linspace(0.0, 1.0, num_points)
  law = Process(places, low, high)

  def draw(rng, num):
    told = rng.uniform(-1.0, 1.0, (num, 2)) if is_range[0] else np.zeros((1, 2))
    factor = np.linalg.cholesky(covariance(places, *law.scales(told)))
    x = factor @ rng.standard_normal((num, num_points, 1))
    return {"x": x, NAME: told} if is_range[0] else x

  said = {NAME: conditions.Condition("vector", (2,))} if is_range[0] else {}
  return Points(draw, law, (num_points, 1), said)


def _ends(given, name):
  """(low, high) of a range, or of a number twice."""
  ends = np.asarray(given, float)
  if ends.shape not in ((), (2,)) or not (
    0 < ends.min() <= ends.max() < np.inf
  ):
    raise ValueError(
      f"{name} must be a number > 0 or (low, high) of them, not {given!r}"
    )
  low, high = (ends, ends) if not ends.ndim else ends
  if low > high or (ends.ndim and low == high):
    raise ValueError(f"{name} must be (low, high), low < high, not {given!r}")
  return low, high
