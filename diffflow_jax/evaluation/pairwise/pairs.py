"""Two sets of features, and one pass over their pairs for all that want it."""

import functools

import numpy as np

from diffflow_jax.evaluation import features as sets
from diffflow_jax.evaluation.pairwise import tables
from diffflow_jax.evaluation.pairwise.balls import Balls
from diffflow_jax.evaluation.pairwise.neighbours import Nearest
from diffflow_jax.evaluation.pairwise.sums import Sum, Sums
from diffflow_jax.evaluation.pairwise.within import Within


class Pairs:
  """What metrics of pairs are made of: two sets, each table walked once.

      pairs = Pairs(samples, reference, kernels=[cubic], k=(3, 5), across=2)
      kid(samples, reference, pairs=pairs)
      prdc(samples, reference, pairs=pairs)

  Products of d terms for m²/2 + n²/2 + m n pairs are what it costs; each table
  is walked when it is first asked for.

  Args:
    samples: (m, ...) features; reference: (n, ...).
    kernels: whose `sums` are wanted.
    k: (k_precision, k_density) of `balls`, or None.
    across: how many nearest reference rows of each sample are wanted.
    own: how many nearest other rows of each reference row.
    within: the `Within` of the reference, where other samples share it.
  Raises:
    ValueError: other dimensions, NaN, a k that is not below the rows, a within
      of other rows or that lacks what is wanted.
  """

  def __init__(
    self, samples, reference, *, kernels=(), k=None, across=0, own=0,
    within=None,
  ):  # fmt: skip
    self.samples, self.reference = sets.pair(samples, reference)
    self.k, self._across, self._own = k, across, max(own, *(k or (0, 0)))
    x, y = self.samples, self.reference
    for name, num, most in (
      ("k_precision", k and k[0], min(len(x), len(y)) - 1),
      ("k_density", k and k[1], min(len(x), len(y)) - 1),
      ("across", across, len(y)),
      ("own", own, len(y) - 1),
    ):
      if num and num > most:
        raise ValueError(f"{name} must be at most {most}, not {num}")
    self._kernels = tuple(kernels)
    self._of_reference = _checked(within, y, self._kernels, self._own)

  def sums(self, kernel):
    """The `Sums` of one of `kernels`."""
    if kernel not in self._kernels:
      raise ValueError(
        f"pairs must have the kernel {kernel!r} in kernels, which has "
        f"{list(self._kernels)}"
      )
    x, y = self._of_samples.sums[kernel], self._of_reference.sums[kernel]
    both = self._crossed[0][kernel]
    return Sums(
      (len(x.rows), len(y.rows)),
      (x.rows, y.rows),
      (both.rows, both.columns),
      (x.square, y.square, both.square),
    )

  @functools.cached_property
  def _shifts(self):
    """What all three tables' values of a kernel are less."""
    return {k: sum_.shift for k, sum_ in self._of_reference.sums.items()}

  @functools.cached_property
  def _of_samples(self):
    num = self.k[0] if self.k else 0
    return Within(
      self.samples, kernels=self._kernels, num=num, shifts=self._shifts
    )

  @functools.cached_property
  def _crossed(self):
    search, balls, nearest = tables.Search(self.samples, self.reference), [], []
    if self.k:
      radii = [self._of_reference.distances[:, k] for k in self.k]
      own = self._of_samples.distances[:, self.k[0]]
      balls = [Balls(search, radii[0], own, radii[1])]
    if self._across:
      nearest = [Nearest(search, self._across)]
    sums = {k: Sum(k, search, self._shifts[k]) for k in self._kernels}
    tables.walk(search, *sums.values(), *balls, *nearest)
    return sums, balls, [one.found() for one in nearest]

  @property
  def balls(self):
    """The `Balls` of k."""
    if not self.k:
      raise ValueError("pairs must have k=(k_precision, k_density) for this")
    return self._crossed[1][0]

  def across(self, num):
    """(distances, indices), (m, num): each sample's nearest reference rows."""
    if num > self._across:
      raise ValueError(f"pairs must have across >= {num}, not {self._across}")
    return tuple(found[:, :num] for found in self._crossed[2][0])

  def own(self, num):
    """(n,): distance of a reference row to its num-th nearest other."""
    if num > self._own:
      raise ValueError(f"pairs must have own >= {num}, not {self._own}")
    return self._of_reference.distances[:, num]


def _checked(within, reference, kernels, num):
  """The `Within` of a reference: one that is there, or a new one."""
  if within is None:
    return Within(reference, kernels=kernels, num=num)
  if not np.array_equal(within.features, reference):
    raise ValueError(
      f"within must be of the reference's {len(reference)} rows, not of "
      f"{len(within.features)} others"
    )
  if within.num < num or set(kernels) - set(within.kernels):
    raise ValueError(
      f"within must have num >= {num} and the kernels {list(kernels)}, not "
      f"num={within.num} and {list(within.kernels)}"
    )
  return within
