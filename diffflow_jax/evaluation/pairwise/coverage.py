"""Precision, recall, density, coverage: balls around k nearest neighbours.

With r_k(x) the distance of x to its k-th nearest other row of its own set,

    precision  share of y in some ball (x, r_k(x))
    recall     share of x in some ball (y, r_k(y))
    density    mean over y of the number of balls (x, r_k(x)) that hold it, / k
    coverage   share of balls (x, r_k(x)) that hold some y

x of the reference, y of the samples; closed balls. Kynkäänniemi et al.,
arXiv:1904.06991 eq. 1 and 2; Naeem et al., arXiv:2002.09797 eq. 3 to 6 (whose
code has open balls, which differ where distances tie). All depend on how many
rows there are: compare at equal numbers, and with one half of the real data
against the other. For equal laws density is 1, coverage `expected_coverage`,
and precision and recall are below 1.
"""

import math
from typing import NamedTuple

import numpy as np

from diffflow_jax.evaluation import estimates, features as sets
from diffflow_jax.evaluation.pairwise.pairs import Pairs
from diffflow_jax.process import ranges


class PRDC(NamedTuple):
  """Four Estimates."""

  precision: estimates.Estimate
  recall: estimates.Estimate
  density: estimates.Estimate
  coverage: estimates.Estimate


def _shares(pairs):
  """The four numbers of `Pairs`."""
  balls = pairs.balls
  density = balls.count / (pairs.k[1] * len(balls.precise))
  return (
    balls.precise.mean(),
    balls.recalled.mean(),
    density,
    balls.covered.mean(),
  )


@ranges.checked(
  k_precision="an integer >= 1",
  k_density="an integer >= 1",
  num_parts="an integer >= 2",
)
def prdc(
  samples, reference, *, k_precision=3, k_density=5, num_parts=10, pairs=None
):
  """Precision, recall, density and coverage of samples, with their errors.

  The errors are those of disjoint parts of both sets (`estimates.spread`; the
  bootstrap is wrong here, since its duplicates shrink the balls), and NaN where
  a part would have no k-th neighbour. Time is O((n² + m² + nm) d).

  Args:
    samples: (m, ...) features; reference: (n, ...).
    pairs: the `Pairs` of both with k, where other metrics share it.
  Raises:
    ValueError: k of rows or more, other dimensions, NaN.
  """
  samples, reference = sets.compared(samples, reference)
  fewest, k = min(len(samples), len(reference)), (k_precision, k_density)
  for name, num in zip(("k_precision", "k_density"), k, strict=True):
    if num >= fewest:
      raise ValueError(
        f"{name} must be < {fewest}, the rows of the smaller set, to have a "
        f"k-th nearest other row, not {num}"
      )
  if pairs is None:
    pairs = Pairs(samples, reference, k=k)
  elif pairs.k != k:
    raise ValueError(f"pairs must have k={k}, not {pairs.k}")
  whole, of_parts = _shares(pairs), []
  if fewest // num_parts > max(k):
    mine = sets.part_of(len(samples), num_parts)
    theirs = sets.part_of(len(reference), num_parts)
    of_parts = [
      _shares(Pairs(samples[mine == i], reference[theirs == i], k=k))
      for i in range(num_parts)
    ]
  values = np.reshape(of_parts, (-1, 4)).T
  return PRDC(
    *(estimates.spread(w, v) for w, v in zip(whole, values, strict=True))
  )


@ranges.checked(
  num_reference="an integer >= 2",
  num_samples="an integer >= 1",
  k="an integer >= 1",
)
def expected_coverage(num_reference, num_samples, k=5):
  """Expected coverage where both sets have one law, whichever it is.

  1 - Π_{i<k} (n - 1 - i)/(n + m - 1 - i)     →  1 - 2^-k at n = m
  """
  n, m = num_reference, num_samples
  return 1.0 - math.prod((n - 1 - i) / (n + m - 1 - i) for i in range(k))
