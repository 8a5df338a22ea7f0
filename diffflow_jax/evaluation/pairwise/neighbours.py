"""Exact nearest neighbours from the blocks of `tables`.

A block's squares cancel between near duplicates: they find the candidates. What
they leave in doubt is computed again from differences in float64, so that
distances are exact, 0 between equal rows, and a closed ball holds its border.
"""

import numpy as np

from diffflow_jax.evaluation import features as sets
from diffflow_jax.evaluation.pairwise import tables
from diffflow_jax.process import ranges

_SPARE = 8  # candidates beyond k, against rounding of the first search


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


class Nearest:
  """The k nearest points of every query, when all blocks have been seen."""

  def __init__(self, search, k):
    self.search, self.k = search, k
    num = min(k + _SPARE, len(search.points))
    shape = len(search.queries), num
    self.squares = np.full(shape, np.inf, search.queries.dtype)
    self.index = np.zeros(shape, np.int64)

  def see(self, block):
    """Takes in a block, of one set along its columns too."""
    self._see(block.rows, block.squares, block.columns.start)
    if block.twice:
      self._see(block.columns, block.squares.T, block.rows.start)

  def _see(self, rows, squares, first):
    num, bound = self.index.shape[1], self.squares[rows].max(1)
    if np.isfinite(bound).all():
      more = _below(squares, bound, first)
    else:
      index = np.arange(first, first + squares.shape[1])[None]
      more = _fewest(squares, np.broadcast_to(index, squares.shape), num)
    known = self.squares[rows], self.index[rows]
    both = [np.concatenate(b, axis=1) for b in zip(known, more, strict=True)]
    self.squares[rows], self.index[rows] = _fewest(*both, num)

  def found(self):
    """(distances, indices), (m, k) each, in order of distance, float64."""
    parts = []
    for rows in sets.slices(len(self.index), tables._ROWS):
      index = self.index[rows]
      i = np.repeat(np.arange(rows.start, rows.stop), index.shape[1])
      squares = self.search.exact(i, index.reshape(-1)).reshape(index.shape)
      order = np.lexsort((index, squares), axis=1)[:, : self.k]
      take = lambda a, order=order: np.take_along_axis(a, order, axis=1)
      parts.append((np.sqrt(take(squares)), take(index)))
    return tuple(np.concatenate(p) for p in zip(*parts, strict=True))


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
  search = tables.Search(queries, None if within else points)
  seen = Nearest(search, k)
  tables.walk(search, seen)
  return seen.found()


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
