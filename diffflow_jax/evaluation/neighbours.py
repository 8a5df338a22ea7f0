"""Exact nearest neighbours by blocks: memory grows with neither set.

‖q‖² - 2 q·p + ‖p‖² finds the candidates, in the dtype of the features and
centred, since it cancels between near duplicates. What it leaves in doubt is
computed again from differences in float64, so that distances are exact, 0
between equal rows, and a closed ball holds its border.
"""

import numpy as np

from diffflow_jax.evaluation import features as sets
from diffflow_jax.process import ranges

_ROWS, _COLUMNS = 4096, 8192  # a block of distances: 128 MB in float32
_SPARE = 8  # candidates beyond k, against rounding of the first search
_GATHER = 1 << 22  # entries that are gathered for differences together


class _Search:
  """Two centred sets, and the blocks of their squared distances."""

  def __init__(self, queries, points):
    self.queries, self.points = queries, points
    self.center = points.mean(0, dtype=np.float64).astype(points.dtype)
    self.norms = self._norms(queries), self._norms(points)
    # of a product of d terms, relative to |q|² + |p|²
    eps = np.finfo(queries.dtype).eps
    self.rounding = 4.0 * eps * np.sqrt(queries.shape[1] + 2.0)

  def _norms(self, x):
    parts = [x[s] - self.center for s in sets.slices(len(x), _ROWS)]
    return np.concatenate([np.einsum("nd,nd->n", p, p) for p in parts])

  def _beside(self, x, *more):
    """Centred rows with two more columns."""
    more = [np.broadcast_to(m, len(x)).astype(x.dtype)[:, None] for m in more]
    return np.concatenate([x - self.center, *more], axis=1)

  def blocks(self, rows, tiles=None):
    """(columns, squares) of the queries in `rows`, block after block."""
    q = self._beside(self.queries[rows], self.norms[0][rows], 1.0)
    q[:, :-2] *= -2.0
    for columns in tiles or sets.slices(len(self.points), _COLUMNS):
      # (-2 q, |q|², 1)·(p, 1, |p|²): no pass over the table but the product
      yield (
        columns,
        q @ self._beside(self.points[columns], 1.0, self.norms[1][columns]).T,
      )

  def exact(self, i, j):
    """‖q_i - p_j‖² in float64 from differences, for index arrays (n,)."""
    out = np.empty(len(i))
    for s in sets.slices(len(i), max(1, _GATHER // self.queries.shape[1])):
      delta = self.queries[i[s]].astype(np.float64) - self.points[j[s]]
      out[s] = np.einsum("nd,nd->n", delta, delta)
    return out


def _fewest(squares, index, num):
  """The num smallest of each row, with their indices."""
  if squares.shape[1] <= num:
    return squares, index
  pick = np.argpartition(squares, num - 1, axis=1)[:, :num]
  take = lambda a: np.take_along_axis(a, pick, axis=1)
  return take(squares), take(index)


def _below(squares, bound, offset):
  """Entries below each row's bound, in columns padded with inf."""
  small = squares < bound[:, None]
  if small.flags.c_contiguous:
    at_row, at_column = np.nonzero(small)
  else:  # of a block that is read along its columns
    at_column, at_row = np.nonzero(small.T)
    order = np.argsort(at_row, kind="stable")
    at_row, at_column = at_row[order], at_column[order]
  counts = np.bincount(at_row, minlength=len(squares))
  place = np.arange(len(at_row)) - np.repeat(np.cumsum(counts) - counts, counts)
  shape = len(squares), counts.max(initial=0)
  found = np.full(shape, np.inf, squares.dtype)
  index = np.zeros(shape, np.int64)
  found[at_row, place] = squares[at_row, at_column]
  index[at_row, place] = at_column + offset
  return found, index


class _Best:
  """The num smallest squares of every query so far, and of which points."""

  def __init__(self, num_queries, num, dtype):
    self.squares = np.full((num_queries, num), np.inf, dtype)
    self.index = np.zeros((num_queries, num), np.int64)

  def see(self, rows, squares, first):
    """Takes in a block: of the queries in rows, and of points from first on."""
    num, bound = self.index.shape[1], self.squares[rows].max(1)
    if np.isfinite(bound).all():
      more = _below(squares, bound, first)
    else:
      index = np.arange(first, first + squares.shape[1])[None]
      more = _fewest(squares, np.broadcast_to(index, squares.shape), num)
    known = self.squares[rows], self.index[rows]
    both = [np.concatenate(b, axis=1) for b in zip(known, more, strict=True)]
    self.squares[rows], self.index[rows] = _fewest(*both, num)


def _candidates(search, num, within):
  """Indices (m, num) of the nearest points as far as rounding tells.

  Args:
    within: whether queries and points are one set: then half of all blocks do,
      each read along its rows and along its columns.
  """
  best = _Best(len(search.queries), num, search.queries.dtype)
  tiles = sets.slices(len(search.points), _ROWS if within else _COLUMNS)
  for i, rows in enumerate(sets.slices(len(search.queries), _ROWS)):
    for columns, squares in search.blocks(rows, tiles[i:] if within else tiles):
      best.see(rows, squares, columns.start)
      if within and columns != rows:
        best.see(columns, squares.T, rows.start)
  return best.index


@ranges.checked(k="an integer >= 1")
def nearest(queries, points, k):
  """The k nearest points of every query, Euclidean.

  Args:
    queries: (m, ...); points: (n, ...), n >= k. A query that is one of the
      points finds itself first, at 0. One array in both places takes half the
      time of two.
  Returns:
    (distances, indices), (m, k) each, in order of distance, float64.
  Raises:
    ValueError: k > n, other dimensions, NaN.
  """
  within = queries is points
  queries, points = sets.pair(queries, points)
  if k > len(points):
    raise ValueError(f"k must be <= {len(points)} points, not {k}")
  search, parts = _Search(queries, points), []
  candidates = _candidates(search, min(k + _SPARE, len(points)), within)
  for rows in sets.slices(len(queries), _ROWS):
    index = candidates[rows]
    i = np.repeat(np.arange(rows.start, rows.stop), index.shape[1])
    squares = search.exact(i, index.reshape(-1)).reshape(index.shape)
    order = np.lexsort((index, squares), axis=1)[:, :k]
    take = lambda a, order=order: np.take_along_axis(a, order, axis=1)
    parts.append((np.sqrt(take(squares)), take(index)))
  return tuple(np.concatenate(p) for p in zip(*parts, strict=True))


@ranges.checked(k="an integer >= 1")
def radii(features, k):
  """The distance of every row to its k-th nearest other row, (n,).

  Raises:
    ValueError: k >= n, NaN.
  """
  features = sets.rows("features", features)
  if k >= len(features):
    raise ValueError(
      f"k must be < {len(features)}, the number of rows, to have a k-th "
      f"nearest other row, not {k}"
    )
  return nearest(features, features, k + 1)[0][:, k]


def in_balls(queries, points, *balls):
  """Which points each query lies in the ball of, block after block.

  Args:
    balls: radii, (1, n) around each point or (m, 1) around each query.
  Yields:
    (rows, columns, inside): slices, and for each of `balls` a bool block of
    ‖q - p‖ <= radius, decided in float64 where it is close.
  """
  search = _Search(queries, points)
  for rows in sets.slices(len(queries), _ROWS):
    for columns, squares in search.blocks(rows):
      yield (
        rows,
        columns,
        [_closed(search, squares, rows, columns, ball) for ball in balls],
      )


def _closed(search, squares, rows, columns, ball):
  """‖q - p‖ <= radius for one block."""
  around_queries = len(ball) == len(search.queries) and ball.shape[1] == 1
  own, other = search.norms[0][rows, None], search.norms[1][None, columns]
  if around_queries:
    radius = ball[rows]
  else:
    radius, own, other = ball[:, columns], other, own
  slack = search.rounding * (own + other.max())
  limit = (radius**2).astype(squares.dtype)
  inside, sure = squares <= limit + slack, squares <= limit - slack
  if np.count_nonzero(inside) > np.count_nonzero(sure):
    i, j = np.nonzero(inside ^ sure)
    wide = np.broadcast_to(radius, squares.shape)[i, j]
    exact = np.sqrt(search.exact(i + rows.start, j + columns.start))
    inside[i, j] = exact <= wide
  return inside
