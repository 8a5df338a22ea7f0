"""Sums of a kernel over all pairs of rows, from the blocks of `tables`."""

import numpy as np

from diffflow_jax.evaluation import features as sets

_STRIP = 64  # rows of a block that stay in a processor's cache


class Sums:
  """Of a kernel less a constant, which no difference of means can see.

  x are the samples and y the reference; a row and itself are no pair.

  Attributes:
    num: (n, m); own: Σ_j k(x_i, x_j) (n,) and of the reference (m,).
    rows: Σ_j k(x_i, y_j) (n,) and Σ_i k(x_i, y_j) (m,).
    squares: Σ k² of (xx, yy, xy).
  """

  def __init__(self, kernel, samples, reference):
    self.kernel, self.num = kernel, (len(samples), len(reference))
    self.own = [np.zeros(num) for num in self.num]
    self.rows = [np.zeros(num) for num in self.num]
    self.squares, self._shift = [0.0, 0.0, 0.0], None

  def of(self, search, which):
    """The visitor of a table: 0 of x, 1 of y, 2 of both."""
    return _Visitor(self, search, which)


class _Visitor:
  def __init__(self, sums, search, which):
    self.sums, self.search, self.which = sums, search, which
    sums_of = (sums.own[which],) * 2 if which < 2 else sums.rows
    self.at_rows, self.at_columns = sums_of
    norms = lambda x: np.concatenate(
      [
        np.einsum("nd,nd->n", x[s], x[s], dtype=np.float64) / x.shape[1]
        for s in sets.slices(len(x), 4096)
      ]
    ).astype(x.dtype)
    self.quick = hasattr(sums.kernel, "of_squares")
    if self.quick:
      one, two = norms(search.queries), norms(search.points)
      self.norms = one, one if search.within else two

  def see(self, block):
    """Takes in a block, strip by strip."""
    both = not self.search.within or block.twice
    num = len(block.squares)
    for s in sets.slices(num, _STRIP if self.quick else num):
      rows = slice(block.rows.start + s.start, block.rows.start + s.stop)
      k = self._values(block.squares[s], rows, block.columns)
      if self.sums._shift is None:
        self.sums._shift = float(k.mean())
      k = k - k.dtype.type(self.sums._shift)
      if not both:  # the diagonal is in this block
        at = np.arange(s.stop - s.start)
        k[at, at + s.start] = 0.0
      self.at_rows[rows] += k.sum(1)
      if both:
        self.at_columns[block.columns] += k.sum(0)
      self.sums.squares[self.which] += (1 + block.twice) * float(np.vdot(k, k))

  def _values(self, squares, rows, columns):
    if self.quick:
      x, y = self.norms[0][rows, None], self.norms[1][columns]
      d = self.search.queries.shape[1]
      return self.sums.kernel.of_squares(squares, x, y, d)
    x, y = self.search.queries[rows], self.search.points[columns]
    return np.asarray(
      self.sums.kernel(x.astype(np.float64), y.astype(np.float64)), np.float64
    )
