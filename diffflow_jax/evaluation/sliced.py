"""The sliced Wasserstein distance."""

import numpy as np

from diffflow_jax.evaluation import estimates, features as sets
from diffflow_jax.process import ranges

_DIRECTIONS = 64  # that are sorted together


def directions(num, dims, seed=0):
  """num unit vectors, uniform on the sphere of `dims` dimensions, (dims, num).

  Functions of the seed and the dimensions: all models see the same.
  """
  theta = np.random.default_rng(seed).standard_normal((dims, num))
  return theta / np.linalg.norm(theta, axis=0)


def _quantile_distance(a, b):
  """∫ (F_a⁻¹ - F_b⁻¹)² of sorted columns (n, L), (m, L): (L,).

  Quantile functions are steps; they are merged where the sets differ in size.
  """
  n, m = len(a), len(b)
  if n == m:
    return ((a - b) ** 2).mean(0)
  # in units of 1/(n m), so that equal breaks are equal
  breaks = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
  width, left = np.diff(breaks) / (n * m), breaks[:-1]
  return width @ (a[left // m] - b[left // n]) ** 2


def _sorted(x, theta):
  """(sorted projections (n, L) in float64, where each came from)."""
  values = (x @ theta.astype(x.dtype)).astype(np.float64)
  order = np.argsort(values, axis=0)
  return np.take_along_axis(values, order, axis=0), order


def _without(values, order, part, i):
  """The sorted columns without the rows of part i."""
  keep = part[order] != i
  # every column loses as many, so column by column they stay a block
  return values.T[keep.T].reshape(values.shape[1], -1).T


@ranges.checked(
  num_directions="an integer >= 1",
  num_parts="an integer >= 2",
  seed="an integer >= 0",
)
def sliced_wasserstein(
  samples, reference, *, num_directions=256, num_parts=10, seed=0
):
  """Squared sliced Wasserstein-2 distance, E_θ W₂²(θᵀx, θᵀy).

  Bonneel et al. 2015. In one dimension W₂² is the mean squared difference of
  quantiles; θ is uniform on the sphere. Equal laws give a plain value of about
  1/n; the one returned has the 1/n of both sets taken off
  (`estimates.jackknife`) and may be negative. The error is for new rows of both
  sets and new directions; models compared on the same directions share that
  part.

  Args:
    samples: (m, ...) features; reference: (n, ...).
  Returns:
    Estimate.
  Raises:
    ValueError: fewer than two rows a part, other dimensions, NaN.
  """
  samples, reference = sets.compared(samples, reference, least=2 * num_parts)
  theta = directions(num_directions, samples.shape[1], seed)
  mine = sets.part_of(len(samples), num_parts)
  theirs = sets.part_of(len(reference), num_parts)
  whole, left_out = [], []
  for s in sets.slices(num_directions, _DIRECTIONS):
    a, a_order = _sorted(samples, theta[:, s])
    b, b_order = _sorted(reference, theta[:, s])
    whole.append(_quantile_distance(a, b))
    less = lambda i, a=a, o=a_order: _without(a, o, mine, i)
    fewer = lambda i, b=b, o=b_order: _without(b, o, theirs, i)
    left_out.append(
      [
        [_quantile_distance(less(i), b).sum() for i in range(num_parts)],
        [_quantile_distance(a, fewer(i)).sum() for i in range(num_parts)],
      ]
    )
  whole = np.concatenate(whole)
  sides = np.sum(left_out, axis=0) / num_directions
  _, value = estimates.jackknife(whole.mean(), *sides)
  if num_directions == 1 or samples.shape[1] == 1:
    return value
  of_directions = whole.var(ddof=1) / num_directions
  return estimates.widen(value, of_directions)
