"""A learned schedule: monotone by construction, exact at both ends."""

from typing import Any

import jax
import jax.numpy as jnp

from diffflow_jax.process import ranges
from diffflow_jax.process.schedule import schedule


@schedule
class Learned:
  """logsnr(t) through a monotone network of one hidden layer.

      -logsnr = gamma_0 + (gamma_1 - gamma_0) (g(t) - g(0))/(g(1) - g(0))
      g(t) = t + Σ_j out_j sigmoid(gain_j t + shift_j),     out, gain > 0

  VDM, arXiv:2107.00630 (appendix), renormalised so that the ends are exact. The
  bound depends on the ends alone; what lies between is trained to lower the
  variance of its estimate. Positive weights are softplus of the leaves.
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
  """A Learned schedule near LinearLogSNR, with random hidden units."""
  gain_key, shift_key = jax.random.split(key)
  gain = jax.random.uniform(gain_key, (num_hidden,), minval=1.0, maxval=8.0)
  shift = -gain * jax.random.uniform(shift_key, (num_hidden,))
  raw_out = jnp.full((num_hidden,), -5.0)
  return Learned(gain, shift, raw_out, logsnr_min, logsnr_max)
