"""Who lies in whose ball, from the blocks of `tables`."""

import numpy as np


class Balls:
  """What precision, recall, density and coverage count in samples × reference.

  Attributes:
    precise: (m,) whether a sample lies in some narrow ball of the reference.
    recalled: (n,) whether a reference row lies in some sample's ball.
    covered: (n,) whether a wide ball of the reference holds some sample.
    count: of pairs (sample, wide ball that holds it).
  """

  def __init__(self, search, narrow, own, wide):
    """Radii: narrow (n,), wide (n,) of the points, own (m,) of the queries."""
    self.search, self.radii = search, (narrow, own, wide)
    self.precise = np.zeros(len(search.queries), bool)
    self.recalled, self.covered = np.zeros((2, len(search.points)), bool)
    self.count = 0

  def see(self, block):
    """Takes in a block; ‖q - p‖ <= radius is decided in float64 where close."""
    narrow, own, wide = self.radii
    squares, rows, columns = block.squares, block.rows, block.columns
    around_points = lambda radius: _closed(
      self.search, squares, rows, columns, radius[None, columns]
    )
    self.precise[rows] |= around_points(narrow).any(1)
    in_wide = around_points(wide)
    self.covered[columns] |= in_wide.any(0)
    self.count += np.count_nonzero(in_wide)
    # the same, around the queries
    in_own = _closed(self.search, squares, rows, columns, own[rows, None])
    self.recalled[columns] |= in_own.any(0)


def _closed(search, squares, rows, columns, radius):
  """‖q - p‖ <= radius for one block; radius (1, columns) or (rows, 1)."""
  own, other = search.norms[0][rows, None], search.norms[1][None, columns]
  if len(radius) == 1 and radius.shape[1] == squares.shape[1]:
    own, other = other, own
  slack = search.rounding * (own + other.max())
  limit = (radius**2).astype(squares.dtype)
  inside, sure = squares <= limit + slack, squares <= limit - slack
  if np.count_nonzero(inside) > np.count_nonzero(sure):
    i, j = np.nonzero(inside ^ sure)
    wide = np.broadcast_to(radius, squares.shape)[i, j]
    exact = np.sqrt(search.exact(i + rows.start, j + columns.start))
    inside[i, j] = exact <= wide
  return inside
