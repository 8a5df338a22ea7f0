"""A learned schedule: monotone by construction, exact at both ends."""

from typing import Any

import jax
import jax.numpy as jnp

from diffflow_jax.process import ranges
from diffflow_jax.process.faces import Schedule
from diffflow_jax.process.schedule import schedule


@schedule
class Learned(Schedule):
  """logsnr(t) through a monotone network of one hidden layer.

      -logsnr = gamma_0 + (gamma_1 - gamma_0) (g(t) - g(0))/(g(1) - g(0))
      g(t) = t + Σ_j out_j sigmoid(gain_j t + shift_j),     out, gain > 0

  VDM, arXiv:2107.00630 (appendix), renormalised so that the ends are exact. The
  bound depends on the ends alone; what lies between is trained to lower the
  variance of its estimate. Positive weights are softplus of the leaves.

  Equation (schedule) of docs/math.
  """

  raw_gain: Any
  shift: Any
  raw_out: Any
  logsnr_min: float = -5.0
  logsnr_max: float = 13.3

  def _g(self, t):
    gain, out = jax.nn.softplus(self.raw_gain), jax.nn.softplus(self.raw_out)
    t = jnp.asarray(t, jnp.result_type(float, t))
    hidden = jax.nn.sigmoid(gain * t[..., None] + self.shift)
    return t + jnp.sum(out * hidden, axis=-1)

  def logsnr(self, t):
    start, end = self._g(0.0), self._g(1.0)
    share = (self._g(t) - start) / (end - start)
    return (1.0 - share) * self.logsnr_max + share * self.logsnr_min


@ranges.checked(num_hidden="an integer >= 1")
def learned(key, num_hidden=64, logsnr_min=-5.0, logsnr_max=13.3):
  """A Learned schedule near LinearLogSNR.

  The rises of the hidden units are spread evenly over time, one at a random
  place in each stratum, and overlap: their sum is nearly a straight line, and
  makes up most of g, so that each part of it can be steepened or flattened.
  """
  gain_key, place_key = jax.random.split(key)
  uniform = lambda key: jax.random.uniform(key, (num_hidden,))
  gain = num_hidden * (0.25 + 0.5 * uniform(gain_key))
  place = (jnp.arange(num_hidden) + uniform(place_key)) / num_hidden
  shift = -gain * (1.2 * place - 0.1)
  raw_out = jnp.full((num_hidden,), -1.0)
  return Learned(gain, shift, raw_out, logsnr_min, logsnr_max)
