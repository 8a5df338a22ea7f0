"""Estimates as JSON has them."""

import numpy as np

from diffflow_jax.evaluation.estimates import Estimate


def as_plain(value):
  """An Estimate or a number as a dict; what is not finite as None."""
  if isinstance(value, dict):
    return value
  if not isinstance(value, Estimate):
    value = Estimate(value, np.nan, np.nan, np.nan)
  names = Estimate._fields
  finite = lambda v: float(v) if np.isfinite(v) else None
  return {name: finite(v) for name, v in zip(names, value, strict=True)}
