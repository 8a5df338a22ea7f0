"""Kernel distances: KID, the Gaussian MMD and the energy distance.

    MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y)                           (1)

over all pairs of different rows, so without bias, and below 0 in about half of
all cases where the laws are equal: never clipped. Gretton et al. 2012 eq. 3.
With a_i = E_j k(x_i, x_j) - E_j k(x_i, y_j), b_j alike, and k̃ the kernel less
its means over both places, Hoeffding's terms are uncorrelated:

    var = 4 var(a)/n + 4 var(b)/m + D                                      (2)
    D = 2 E k̃_xx²/n² + 2 E k̃_yy²/m² + 4 E k̃_xy²/(n m)

What rows tell of the first two is too large by 2 D (a mean over few rows is
noisy), and D is all that there is where the laws are equal.
"""

import numpy as np

from diffflow_jax.evaluation import estimates, features as sets
from diffflow_jax.evaluation.pairwise.pairs import Pairs
from diffflow_jax.process import ranges


class _OfSquares:
  """A kernel that needs no more than ‖x - y‖², ‖x‖²/d and ‖y‖²/d."""

  def __init__(self, of_squares, name):
    self.of_squares, self.name = of_squares, name

  def __call__(self, x, y):
    per_d = lambda a: np.einsum("nd,nd->n", a, a) / a.shape[1]
    squares = squared_distances(x, y)
    return self.of_squares(squares, per_d(x)[:, None], per_d(y), x.shape[1])

  def __repr__(self):
    return self.name


def squared_distances(x, y):
  """‖x - y‖² (n, m) of float64 rows."""
  center = x.mean(0)
  x, y = x - center, y - center
  squares = (x**2).sum(1)[:, None] - 2.0 * x @ y.T + (y**2).sum(1)
  return np.maximum(squares, 0.0)


def _cubic(squares, x, y, d):
  inner = squares * (-0.5 / d)  # x·y/d = (‖x‖² + ‖y‖² - ‖x - y‖²)/(2 d)
  inner += 0.5 * x + 1.0
  inner += 0.5 * y
  return inner * inner * inner


# (x·y/d + 1)³: KID's kernel, which sees the first three moments alone
cubic = _OfSquares(_cubic, "cubic")
# -‖x - y‖, the kernel of the energy distance
negative_distance = _OfSquares(
  lambda squares, x, y, d: -np.sqrt(np.maximum(squares, 0.0)),
  "negative_distance",
)


@ranges.checked(bandwidth="> 0")
def gaussian(bandwidth):
  """exp(-‖x - y‖²/(2 bandwidth²)), a kernel."""
  rate = -0.5 / float(bandwidth) ** 2
  return _OfSquares(
    lambda squares, x, y, d: np.exp(np.maximum(squares, 0.0) * rate),
    f"gaussian({bandwidth})",
  )


def influences(sums):
  """(value, a (n,), b (m,), D): eq. (1) and what eq. (2) makes its error of.

  Args:
    sums: what `Pairs.sums` has of a kernel.
  """
  (one, two), num, squares = sums.rows, sums.num, sums.squares
  n, m = num
  own_x, own_y = sums.own[0] / (n - 1), sums.own[1] / (m - 1)
  to_y, to_x = one / m, two / n
  a, b = own_x - to_y, own_y - to_x
  value = own_x.mean() + own_y.mean() - 2.0 * to_y.mean()
  # E k̃² = E k² - E of row means² - E of column means² + (E k)²
  inner = lambda mean_square, r, c: max(
    mean_square - (r**2).mean() - (c**2).mean() + r.mean() * c.mean(), 0.0
  )
  xx = inner(squares[0] / (n * (n - 1)), own_x, own_x)
  yy = inner(squares[1] / (m * (m - 1)), own_y, own_y)
  xy = inner(squares[2] / (n * m), to_y, to_x)
  return value, a, b, 2.0 * xx / n**2 + 2.0 * yy / m**2 + 4.0 * xy / (n * m)


def mmd(samples, reference, kernel, *, pairs=None):
  """Eq. (1) for any kernel, with the error of eq. (2).

  Args:
    samples: (m, ...) features; reference: (n, ...), at least 4 rows each.
    kernel: `cubic`, `gaussian(bandwidth)`, `negative_distance`, or yours as
      (x (n, d), y (m, d)) -> (n, m) in float64. A bandwidth belongs to the
      reference (`median_distance`), never to the model that is judged.
    pairs: the `Pairs` of both with this kernel, where other metrics share it.
  Returns:
    Estimate.
  Raises:
    ValueError: fewer rows, other dimensions, NaN.
  """
  samples, reference = sets.compared(samples, reference, least=4)
  if pairs is None:
    pairs = Pairs(samples, reference, kernels=[kernel])
  value, a, b, noise = influences(pairs.sums(kernel))
  rows = 4.0 * (a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
  error = np.sqrt(max(rows - noise, noise))
  return estimates.student(value, error, min(len(a), len(b)) - 1)


def kid(samples, reference, *, pairs=None):
  """KID: `mmd` of the kernel (x·y/d + 1)³, arXiv:1801.01401 §4.

  Not multiplied by 1000, as tables often are. Other code takes the mean over
  random subsets, whose spread is no standard error.
  """
  return mmd(samples, reference, cubic, pairs=pairs)


def energy_distance(samples, reference, *, pairs=None):
  """2 E‖x - y‖ - E‖x - x'‖ - E‖y - y'‖, a squared distance (Székely 2013).

  As `mmd`, without bias; SciPy's energy_distance is the square root, in one
  dimension, with the pairs of a row with itself.
  """
  return mmd(samples, reference, negative_distance, pairs=pairs)


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
