"""Mean and covariance of rows that never have to be in memory together.

    n = n_a + n_b,  δ = m_b - m_a
    m = m_a + δ n_b/n,   S = S_a + S_b + δ δᵀ n_a n_b/n            (1)

Chan, Golub & LeVeque 1983, in float64: centred, so that a mean far from 0 costs
no digits.
"""

from typing import NamedTuple

import numpy as np

from diffflow_jax.evaluation import features as sets
from diffflow_jax.process import ranges

_CHUNK = 4096  # rows that are held in float64 together


class Moments(NamedTuple):
  """Of num rows of d features: mean (d,), scatter Σ (y - m)(y - m)ᵀ (d, d)."""

  num: int
  mean: np.ndarray
  scatter: np.ndarray

  @property
  def covariance(self):
    """scatter/(num - 1), the divisor of FID."""
    return self.scatter / (self.num - 1)


def vary_nowhere(moments):
  """Whether all rows are the same, but for the rounding of their mean."""
  noise = moments.num * (1e-12 * moments.mean) ** 2
  return bool((np.diag(moments.scatter) <= noise).all())


def merge(a, b):
  """The Moments of two disjoint sets together, eq. (1)."""
  num, delta = a.num + b.num, b.mean - a.mean
  between = np.outer(delta, delta) * (a.num * b.num / num)
  mean = a.mean + delta * (b.num / num)
  return Moments(num, mean, a.scatter + b.scatter + between)


def merge_all(parts):
  """The Moments of all parts, always merged in the order given."""
  whole = parts[0]
  for part in parts[1:]:
    whole = merge(whole, part)
  return whole


def without(whole, part):
  """The Moments of the whole without one of its parts: eq. (1) backwards."""
  num = whole.num - part.num
  mean = whole.mean + (whole.mean - part.mean) * (part.num / num)
  delta = part.mean - mean
  between = np.outer(delta, delta) * (num * part.num / whole.num)
  return Moments(num, mean, whole.scatter - part.scatter - between)


def _of(y):
  y = y.astype(np.float64)
  mean = y.mean(0)
  y -= mean
  return Moments(len(y), mean, y.T @ y)


def _chunks(features):
  """A set, or an iterable of sets, in pieces of at most _CHUNK rows."""
  pieces = hasattr(features, "__iter__") and not (
    hasattr(features, "shape")
    or isinstance(features, list | str | bytes | dict)
  )
  for piece in features if pieces else [features]:
    piece = sets.rows("features", piece)
    for part in sets.slices(len(piece), _CHUNK):
      yield piece[part]


def moments(features):
  """The Moments of features.

  Args:
    features: (num, ...), or an iterable of such arrays, of which one at a time
      is in memory. How they are cut changes the rounding alone.
  Raises:
    ValueError: no rows, NaN, pieces of different dimensions.
  """
  return merge_all(moments_in_parts(features, num_parts=1))


@ranges.checked(num_parts="an integer >= 1")
def moments_in_parts(features, *, num_parts=10):
  """The Moments of disjoint parts, for the uncertainty of what is made of them.

  Row i is in the part that `features.dealt` says, wherever a piece ends. Rows
  sorted by class are spread evenly over the parts, whose error is then that of
  samples made in equal numbers of each class.

  Args:
    features: as of `moments`.
  Returns:
    A list of num_parts Moments; memory is num_parts d² and one piece.
  Raises:
    ValueError: fewer than two rows a part, or as `moments`.
  """
  parts, first = [None] * num_parts, 0
  for piece in _chunks(features):
    if first:
      sets.same_width(piece.shape, parts[0].mean.shape)
    places = sets.dealt(len(piece), num_parts, first)
    for i in np.unique(places):
      new = _of(piece[places == i])
      parts[i] = new if parts[i] is None else merge(parts[i], new)
    first += len(piece)
  if first < 2 * num_parts:
    raise ValueError(
      f"features must have at least {2 * num_parts} rows for {num_parts} "
      f"parts of two or more, not {first}"
    )
  return parts
