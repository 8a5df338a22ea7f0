"""A number with its uncertainty, and where uncertainties come from.

    mean      mean ± t s/√n          of independent draws
    jackknife B θ - (B-1) mean θ_-b  without one of B parts; what is left out
                                     tells the spread and the 1/n bias
    wilson    of a share of independent yes and no

An interval is for new draws of everything that was drawn, at 95 %.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

LEVEL = 0.975  # of a two-sided interval of 95 %


class Estimate(NamedTuple):
  """A value, its standard error and its 95 % interval, all floats.

  They are NaN, but for the value, where there was too little to tell.
  """

  value: float
  standard_error: float
  low: float
  high: float

  def __str__(self):
    """The error to two digits, and the value to the same."""
    value, error = self.value, self.standard_error
    if 0.0 < error < np.inf:
      places = 1 - math.floor(math.log10(error))
      value, error = round(value, places), round(error, places)
    return f"{value:.10g} ± {error:.10g}"


def _quantile(dof):
  """97.5 % of Student's t, which is the normal's at infinitely many degrees."""
  return special.ndtri(LEVEL) if np.isinf(dof) else special.stdtrit(dof, LEVEL)


def student(value, standard_error, dof=np.inf):
  """value ± t standard_error, t the 97.5 % quantile of `dof` degrees."""
  t = float(_quantile(dof))
  value, error = float(value), float(standard_error)
  return Estimate(value, error, value - t * error, value + t * error)


def widen(estimate, variance):
  """The Estimate with the variance of an independent source added."""
  value, error, _, high = estimate
  wider = float(np.hypot(error, np.sqrt(variance)))
  t = (high - value) / error if error > 0 else float(_quantile(np.inf))
  return Estimate(value, wider, value - t * wider, value + t * wider)


def mean(draws):
  """The mean of independent draws (n,), with s/√n and n - 1 degrees."""
  draws = np.asarray(draws, np.float64)
  num = len(draws)
  if num < 2:
    return student(draws.mean(), np.nan)
  return student(draws.mean(), draws.std(ddof=1) / np.sqrt(num), num - 1)


def spread(whole, parts):
  """The value of a whole, with the error that its disjoint parts tell.

  A part of n/B rows has B times the variance of the whole, so the error is
  s(parts)/√B, with B - 1 degrees. Right where the variance falls as 1/n, also
  where the bootstrap is not (k nearest neighbours); the interval is for the
  expectation at this number of rows.
  """
  parts = np.asarray(parts, np.float64)
  if len(parts) < 2:
    return student(whole, np.nan)
  error = parts.std(ddof=1) / np.sqrt(len(parts))
  return student(whole, error, len(parts) - 1)


def jackknife(whole, *sides):
  """The value at infinitely many rows, by leaving out one part at a time.

      θ_∞ = θ - Σ_sides (B-1)(mean θ_-b - θ),  var = Σ (B-1)/B Σ (θ_-b - mean)²

  The bias c/n of every side is taken off (Quenouille 1956; Tukey 1958; groups
  of rows as Miller 1974); where it is all that is left, the variance is too
  large rather than too small (Efron & Stein 1981).

  Args:
    whole: θ of all rows; sides: θ_-b for each part b of one set, (B,).
  Returns:
    (plain, unbiased): θ and θ_∞, both with that error.
  """
  value, variances, weights = float(whole), [], []
  for side in sides:
    side = np.asarray(side, np.float64)
    num = len(side)
    value -= (num - 1) * (side.mean() - whole)
    variances.append((num - 1) / num * ((side - side.mean()) ** 2).sum())
    weights.append(variances[-1] ** 2 / (num - 1))
  variance = sum(variances)
  # Welch-Satterthwaite; without any spread the degrees do not matter
  dof = variance**2 / sum(weights) if sum(weights) > 0 else np.inf
  error = np.sqrt(variance) if sides else np.nan
  return student(whole, error, dof), student(value, error, dof)


def wilson(hits, num):
  """A share hits/num of independent draws, interval of Wilson 1927."""
  share, z = hits / num, special.ndtri(LEVEL)
  error = np.sqrt(share * (1 - share) / num)
  middle = (share + z**2 / (2 * num)) / (1 + z**2 / num)
  half = z * np.sqrt(error**2 + (z / (2 * num)) ** 2) / (1 + z**2 / num)
  # no hits and all hits are ends of their intervals, but for rounding
  low, high = min(middle - half, share), max(middle + half, share)
  return Estimate(
    float(share), float(error), max(float(low), 0.0), min(float(high), 1.0)
  )
