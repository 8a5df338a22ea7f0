"""What wrappers of predict share: consistent pairs, numbers as data."""

from typing import dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import predictors, ranges, ways
from diffflow_jax.process.levels import bcast


@dataclass_transform(frozen_default=True)
def wrapper(cls):
  """Class decorator: a predictor around another one, `predict`, as a pytree.

  The class has at(self, row, z, cond) with row = (lv, the inner predictor's
  row); what follows from that is the contract of `process.predictors`.
  """
  if not hasattr(cls, "prepare"):
    cls.prepare = lambda self, lv: (lv, predictors.prepare(self.predict, lv))
  cls.__call__ = lambda self, z, lv, cond=None: self.at(
    self.prepare(lv), z, cond
  )
  return ranges.node(cls)


def at_one_level(lv):
  """Refuses guidance of a flow map on its way to another level.

  Raises:
    ValueError: lv.to is another one; it says what can be done.
  """
  if ways.goes_elsewhere(lv):
    raise ValueError(
      "guidance is of predictions at one level, and a flow map's, mixed, are "
      "not the guided map: guide what it is trained with, and tell the network "
      "the strength as a condition"
    )


def with_x(x_hat_new, x_hat, eps_hat, lv):
  """(x̂', ε̂') on the same state: ε̂' = ε̂ - (alpha/sigma) (x̂' - x̂).

  At sigma = 0 there is no noise to predict, and ε̂ stays.

  Equation (consistent) of docs/math.
  """
  noisy = lv.sigma > 0
  ratio = jnp.where(noisy, lv.alpha / jnp.where(noisy, lv.sigma, 1.0), 0.0)
  shift = bcast(ratio, x_hat) * (x_hat_new - x_hat)
  return x_hat_new, eps_hat - shift


def as_floats(wrapper, *names):
  """Makes numbers of a wrapper arrays of one dtype, so they are data alike.

  2, 2.0, np.float32(2) and an array of float64 would each be another program.
  """
  dtype = jnp.result_type(float)
  given = (bool, int, float, list, np.generic, np.ndarray, jax.Array)

  def convert(value):
    if not isinstance(value, given) or isinstance(value, jax.core.Tracer):
      return value  # a tracer, or what `ranges` will refuse
    return jnp.asarray(value, dtype)

  for name in names:
    value = getattr(wrapper, name)
    if isinstance(value, tuple):
      value = tuple(convert(v) for v in value)
    object.__setattr__(wrapper, name, convert(value))
