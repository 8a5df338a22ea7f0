"""Squared distances of all pairs of rows, block by block, for whoever looks.

‖q‖² - 2 q·p + ‖p‖² in the dtype of the features and centred: one product of
matrices, which is what all metrics of pairs cost. So `walk` makes each block
once and shows it to all visitors; memory grows with neither set.
"""

from typing import NamedTuple

import numpy as np

from diffflow_jax.evaluation import features as sets

_ROWS, _COLUMNS = 4096, 8192  # a block of distances: 128 MB in float32
_GATHER = 1 << 22  # entries that are gathered for differences together


class Block(NamedTuple):
  """What a visitor sees.

  Attributes:
    rows, columns: slices of queries and of points.
    squares: ‖q - p‖² as far as rounding tells, in the dtype of the features.
    twice: whether the block stands for its mirror image too: queries and points
      are one set, and these rows are not these columns.
  """

  rows: slice
  columns: slice
  squares: np.ndarray
  twice: bool


class Search:
  """Two centred sets, or one, and the blocks of their squared distances.

  Attributes:
    within: whether there is one set, of which half of all blocks do.
    rounding: of a square, relative to |q|² + |p|².
  """

  def __init__(self, queries, points=None):
    self.within = points is None
    points = queries if self.within else points
    self.queries, self.points = queries, points
    self.center = points.mean(0, dtype=np.float64).astype(points.dtype)
    self.norms = self._norms(queries), self._norms(points)
    # of a product of d terms
    eps = np.finfo(queries.dtype).eps
    self.rounding = 4.0 * eps * np.sqrt(queries.shape[1] + 2.0)

  def _norms(self, x):
    parts = [x[s] - self.center for s in sets.slices(len(x), _ROWS)]
    return np.concatenate([np.einsum("nd,nd->n", p, p) for p in parts])

  def _beside(self, x, *more):
    """Centred rows with two more columns."""
    more = [np.broadcast_to(m, len(x)).astype(x.dtype)[:, None] for m in more]
    return np.concatenate([x - self.center, *more], axis=1)

  def blocks(self):
    """Every `Block`, of one set those on and above the diagonal."""
    width = _ROWS if self.within else _COLUMNS
    tiles = sets.slices(len(self.points), width)
    for i, rows in enumerate(sets.slices(len(self.queries), _ROWS)):
      q = self._beside(self.queries[rows], self.norms[0][rows], 1.0)
      q[:, :-2] *= -2.0
      for columns in tiles[i:] if self.within else tiles:
        # (-2 q, |q|², 1)·(p, 1, |p|²): no pass over the table but the product
        p = self._beside(self.points[columns], 1.0, self.norms[1][columns])
        yield Block(rows, columns, q @ p.T, self.within and columns != rows)

  def exact(self, i, j):
    """‖q_i - p_j‖² in float64 from differences, for index arrays (n,)."""
    out = np.empty(len(i))
    for s in sets.slices(len(i), max(1, _GATHER // self.queries.shape[1])):
      delta = self.queries[i[s]].astype(np.float64) - self.points[j[s]]
      out[s] = np.einsum("nd,nd->n", delta, delta)
    return out


def walk(search, *visitors):
  """Shows every block to every visitor, which has see(Block)."""
  for block in search.blocks() if visitors else ():
    for visitor in visitors:
      visitor.see(block)
