"""A set of features, as metrics take it: streamed, or whole."""

import functools

import numpy as np

from diffflow_jax.evaluation import features as sets, streaming

PARTS = 10  # disjoint, which tell an error


class Side:
  """Arrays of samples or of a reference: "features", and "labels" if any.

  Attributes:
    num: of rows; kept: what was made of it for all that it is compared with.
  """

  def __init__(self, num, stream, array):
    self.num, self._stream, self._array = num, stream, array
    self.kept = {}

  @classmethod
  def of_rows(cls, rows):
    """All of a `Rows`, whose arrays lie on disk."""
    return cls(rows.num, rows.stream, rows.array)

  @classmethod
  def of_arrays(cls, arrays):
    """Of {name: (num, ...)}."""
    num = len(arrays["features"])
    return cls(num, lambda name: iter([arrays[name]]), arrays.__getitem__)

  def stream(self, name="features"):
    """An iterator of the rows of one array, some at a time."""
    return self._stream(name)

  def array(self, name="features"):
    """One array (num, ...), which may lie on disk."""
    return self._array(name)

  @functools.cached_property
  def parts(self):
    """PARTS Moments of the features, dealt out by their index."""
    return streaming.moments_in_parts(self.stream(), num_parts=PARTS)

  @functools.cached_property
  def moments(self):
    """The Moments of all features."""
    return streaming.merge_all(self.parts)

  def part(self, i, parts=PARTS):
    """One of so many disjoint parts; of equal numbers, the same rows."""
    return self.rows(np.flatnonzero(sets.part_of(self.num, parts) == i))

  def first(self, num):
    """The first num rows, or all."""
    return self if num >= self.num else self.rows(np.arange(num))

  def rows(self, index):
    """The rows of an array of indices, in memory."""
    take = functools.cache(lambda name: np.asarray(self.array(name)[index]))
    return Side(len(index), lambda name: iter([take(name)]), take)
