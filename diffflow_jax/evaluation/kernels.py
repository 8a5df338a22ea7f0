"""Kernel distances: KID, the Gaussian MMD and the energy distance.

    MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y)                           (1)

over pairs of different rows, so without bias, and below 0 in about half of all
cases where the laws are equal: never clipped. Gretton et al. 2012 eq. 3. The
mean over disjoint parts (Zaremba et al., arXiv:1307.1954) costs n²/B, and the
parts tell its error; an array on disk (np.memmap) is read part by part.
"""

import numpy as np

from diffflow_jax.evaluation import estimates, features as sets
from diffflow_jax.process import ranges

_PART = 1024  # rows of a part, which TF-GAN takes for KID too


def cubic(x, y):
  """(x·y/d + 1)³: KID's kernel, which sees the first three moments alone."""
  return (x @ y.T / x.shape[1] + 1.0) ** 3


def squared_distances(x, y):
  """‖x - y‖² (n, m) of float64 rows."""
  center = x.mean(0)
  x, y = x - center, y - center
  squares = (x**2).sum(1)[:, None] - 2.0 * x @ y.T + (y**2).sum(1)
  return np.maximum(squares, 0.0)


@ranges.checked(bandwidth="> 0")
def gaussian(bandwidth):
  """exp(-‖x - y‖²/(2 bandwidth²)), a kernel."""
  return lambda x, y: np.exp(-squared_distances(x, y) / (2.0 * bandwidth**2))


def negative_distance(x, y):
  """-‖x - y‖, the kernel of the energy distance."""
  return -np.sqrt(squared_distances(x, y))


def _off_diagonal(kernel, x):
  values = kernel(x, x)
  return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))


def unbiased(x, y, kernel):
  """Eq. (1) of float64 rows x (n, d) and y (m, d), at least two each."""
  cross = kernel(x, y).mean()
  return _off_diagonal(kernel, x) + _off_diagonal(kernel, y) - 2.0 * cross


def _number(num_parts, fewest, most):
  """How many parts, if not said: of 1024 rows, at least 20."""
  if num_parts is None:
    num_parts = max(20, -(-most // _PART))
  if fewest < 2 * num_parts:
    raise ValueError(
      f"samples and reference must have at least {2 * num_parts} rows for "
      f"{num_parts} parts of two or more, not {fewest}"
    )
  return num_parts


@ranges.checked(num_parts="an integer >= 2")
def mmd(samples, reference, kernel, *, num_parts=None):
  """Eq. (1) for any kernel, as the mean over disjoint parts.

  Args:
    samples: (m, ...) features; reference: (n, ...).
    kernel: (x (n, d), y (m, d)) -> (n, m), in float64: `cubic`,
      `gaussian(bandwidth)` or yours. A bandwidth belongs to the reference
      (`median_distance`), never to the model that is judged.
    num_parts: parts of 1024 rows, and at least 20, where it is None.
  Returns:
    Estimate; its error is that of the mean of num_parts values.
  Raises:
    ValueError: fewer than two rows a part, other dimensions, NaN.
  """
  samples, reference = sets.pair(samples, reference)
  sizes = len(samples), len(reference)
  num_parts = _number(num_parts, min(sizes), max(sizes))
  mine, theirs = (sets.part_of(size, num_parts) for size in sizes)
  wide = lambda x: x.astype(np.float64)
  return estimates.mean(
    [
      unbiased(wide(samples[mine == i]), wide(reference[theirs == i]), kernel)
      for i in range(num_parts)
    ]
  )


def kid(samples, reference, *, num_parts=None):
  """KID: `mmd` of the kernel (x·y/d + 1)³, arXiv:1801.01401 §4.

  Not multiplied by 1000, as tables often are. Other code takes the mean over
  random subsets, whose spread is no standard error.
  """
  return mmd(samples, reference, cubic, num_parts=num_parts)


def energy_distance(samples, reference, *, num_parts=None):
  """2 E‖x - y‖ - E‖x - x'‖ - E‖y - y'‖, a squared distance (Székely 2013).

  As `mmd`, without bias; SciPy's energy_distance is the square root, in one
  dimension, with the pairs of a row with itself.
  """
  return mmd(samples, reference, negative_distance, num_parts=num_parts)


@ranges.checked(num_rows="an integer >= 2")
def median_distance(reference, num_rows=2000):
  """The median of ‖x - x'‖ over pairs of num_rows evenly spaced rows: a float.

  A bandwidth for `gaussian`: h itself, not h².
  """
  reference = sets.rows("reference", reference, least=2)
  take = np.linspace(0, len(reference) - 1, min(num_rows, len(reference)))
  x = reference[take.astype(int)].astype(np.float64)
  upper = np.triu_indices(len(x), 1)
  return float(np.median(np.sqrt(squared_distances(x, x)[upper])))
