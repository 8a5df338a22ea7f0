"""The loss on data that training never saw, at fixed levels and noise.

Sample quality needs a judge; this number needs none, and where the closed form
of the data is known it has a floor, which the exact prediction reaches.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.objective.losses import noise_like
from diffflow_jax.process import levels
from diffflow_jax.store.compilation import brisk

# bins of logsnr; outside them every model is near its limit
EDGES = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)


@functools.cache
def _program():
  """`_squares`, compiled; made late, since it asks what the devices are."""
  return brisk(_squares)


def _squares(predict, x, cond, key):
  """(bins,): mean over the examples of ‖eps - ε̂‖²/d, bin after bin."""
  num = x.shape[0]
  place = (jnp.arange(num) + 0.5) / num  # one level in the bin for each example

  def one(bin):
    lower, upper, key = bin
    lv = levels.at_logsnr(levels.vp, lower + (upper - lower) * place)
    eps = noise_like(key, x)
    _, eps_hat = predict(levels.add_noise(x, eps, lv), lv, cond)
    return jnp.mean(jnp.square(eps - eps_hat))

  edges, keys = jnp.array(EDGES), jax.random.split(key, len(EDGES) - 1)
  return jax.lax.map(one, (edges[:-1], edges[1:], keys))


def eps_mse_by_logsnr(predict, x, cond=None, seed=0):
  """E ‖eps - ε̂‖²/d within each bin of logsnr, as {(lower, upper): float}.

  Levels are spread evenly over the bin; levels and noise are functions of the
  seed, so that two models, or two moments of training, see the same.

  Args:
    predict: (z, level, cond) -> (x̂, ε̂), a pytree.
    x: (num, d...) floats; cond: their labels or None.
  """
  squares = np.asarray(_program()(predict, x, cond, jax.random.key(seed)))
  bins = zip(EDGES[:-1], EDGES[1:], strict=True)
  return {b: float(s) for b, s in zip(bins, squares, strict=True)}
