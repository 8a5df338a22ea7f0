"""One set of features, and one pass over its own pairs for all that want it."""

import functools

from diffflow_jax.evaluation import features as sets
from diffflow_jax.evaluation.pairwise import tables
from diffflow_jax.evaluation.pairwise.neighbours import Nearest
from diffflow_jax.evaluation.pairwise.sums import Sum


class Within:
  """What metrics of pairs want of one set alone, walked when first asked for.

      reference = Within(real, kernels=[cubic], num=5)
      for samples in several:
        Pairs(samples, real, kernels=[cubic], k=(3, 5), within=reference)

  Args:
    features: (n, ...); kernels: whose sums are wanted.
    num: how many nearest other rows of each row, 0 for none.
    shifts: {kernel: constant} that its values are less, where it is known.
  """

  def __init__(self, features, *, kernels=(), num=0, shifts=None):
    self.features = sets.rows("features", features)
    self.kernels, self.num = tuple(kernels), num
    self._shifts = shifts or {}

  @functools.cached_property
  def _walked(self):
    search = tables.Search(self.features)
    nearest = [Nearest(search, self.num + 1)] if self.num else []
    sums = {k: Sum(k, search, self._shifts.get(k)) for k in self.kernels}
    tables.walk(search, *sums.values(), *nearest)
    return sums, nearest[0].found()[0] if nearest else None

  @property
  def sums(self):
    """{kernel: its `Sum`}."""
    return self._walked[0]

  @property
  def distances(self):
    """(n, num + 1), of a row to itself and to its nearest others."""
    return self._walked[1]
