"""Sums of a kernel over all pairs of rows, from the blocks of `tables`."""

from typing import NamedTuple

import numpy as np

from diffflow_jax.evaluation import features as sets

_STRIP = 64  # rows of a block that stay in a processor's cache


class Sums(NamedTuple):
  """Of a kernel less a constant, which no difference of means can see.

  x are the samples and y the reference; a row and itself are no pair.

  Attributes:
    num: (n, m); own: Σ_j k(x_i, x_j) (n,) and of the reference (m,).
    rows: Σ_j k(x_i, y_j) (n,) and Σ_i k(x_i, y_j) (m,).
    squares: Σ k² of (xx, yy, xy).
  """

  num: tuple
  own: tuple
  rows: tuple
  squares: tuple


class Sum:
  """A kernel over the pairs of one search: of two sets, or of one.

  Attributes:
    rows: Σ_j k(q_i, p_j); columns: Σ_i, the same array where there is one set.
    square: Σ k²; shift: what each k is less, of the first block where None.
  """

  def __init__(self, kernel, search, shift=None):
    self.kernel, self.search, self.shift = kernel, search, shift
    self.rows = self.columns = np.zeros(len(search.queries))
    if not search.within:
      self.columns = np.zeros(len(search.points))
    self.square = 0.0
    self._quick = hasattr(kernel, "of_squares")
    if self._quick:
      one = _mean_squares(search.queries)
      self._norms = one, one if search.within else _mean_squares(search.points)

  def see(self, block):
    """Takes in a block, strip by strip."""
    both = not self.search.within or block.twice
    num = len(block.squares)
    for s in sets.slices(num, _STRIP if self._quick else num):
      rows = slice(block.rows.start + s.start, block.rows.start + s.stop)
      k = self._values(block.squares[s], rows, block.columns)
      if self.shift is None:
        self.shift = float(k.mean())
      k = k - k.dtype.type(self.shift)
      if not both:  # the diagonal is in this block
        at = np.arange(s.stop - s.start)
        k[at, at + s.start] = 0.0
      self.rows[rows] += k.sum(1)
      if both:
        self.columns[block.columns] += k.sum(0)
      self.square += (1 + block.twice) * float(np.vdot(k, k))

  def _values(self, squares, rows, columns):
    if self._quick:
      x, y = self._norms[0][rows, None], self._norms[1][columns]
      d = self.search.queries.shape[1]
      return self.kernel.of_squares(squares, x, y, d)
    x, y = self.search.queries[rows], self.search.points[columns]
    return np.asarray(
      self.kernel(x.astype(np.float64), y.astype(np.float64)), np.float64
    )


def _mean_squares(x):
  """|x|²/d of every row, in the dtype of x."""
  parts = [
    np.einsum("nd,nd->n", x[s], x[s], dtype=np.float64) / x.shape[1]
    for s in sets.slices(len(x), 4096)
  ]
  return np.concatenate(parts).astype(x.dtype)
