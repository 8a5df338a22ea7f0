"""Two sets of features, and one pass over their pairs for all that want it."""

import functools

from diffflow_jax.evaluation import features as sets
from diffflow_jax.evaluation.pairwise import tables
from diffflow_jax.evaluation.pairwise.balls import Balls
from diffflow_jax.evaluation.pairwise.neighbours import Nearest
from diffflow_jax.evaluation.pairwise.sums import Sums


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
  Raises:
    ValueError: other dimensions, NaN, a k that is not below the rows.
  """

  def __init__(
    self, samples, reference, *, kernels=(), k=None, across=0, own=0
  ):
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
    self._sums = {kernel: Sums(kernel, x, y) for kernel in kernels}

  def sums(self, kernel):
    """The `Sums` of one of `kernels`."""
    if kernel not in self._sums:
      raise ValueError(
        f"pairs must have the kernel {kernel!r} in kernels, which has "
        f"{list(self._sums)}"
      )
    _ = self.of_samples, self.of_reference, self._crossed
    return self._sums[kernel]

  def _visited(self, search, which, *more):
    """Walks one table, past all kernels too."""
    seen = [sums.of(search, which) for sums in self._sums.values()]
    tables.walk(search, *seen, *more)

  def _within(self, x, which, num):
    search = tables.Search(x)
    nearest = [Nearest(search, num + 1)] if num else []
    self._visited(search, which, *nearest)
    return nearest[0].found()[0] if nearest else None

  @functools.cached_property
  def of_samples(self):
    """Distances of a sample to itself and its k_precision nearest others."""
    return self._within(self.samples, 0, self.k[0] if self.k else 0)

  @functools.cached_property
  def of_reference(self):
    """Distances of a reference row to itself and its nearest others."""
    return self._within(self.reference, 1, self._own)

  @functools.cached_property
  def _crossed(self):
    search, balls, nearest = tables.Search(self.samples, self.reference), [], []
    if self.k:
      radii = [self.of_reference[:, k] for k in self.k]
      own = self.of_samples[:, self.k[0]]
      balls = [Balls(search, radii[0], own, radii[1])]
    if self._across:
      nearest = [Nearest(search, self._across)]
    self._visited(search, 2, *balls, *nearest)
    return balls, [one.found() for one in nearest]

  @property
  def balls(self):
    """The `Balls` of k."""
    if not self.k:
      raise ValueError("pairs must have k=(k_precision, k_density) for this")
    return self._crossed[0][0]

  def across(self, num):
    """(distances, indices), (m, num): each sample's nearest reference rows."""
    if num > self._across:
      raise ValueError(f"pairs must have across >= {num}, not {self._across}")
    return tuple(found[:, :num] for found in self._crossed[1][0])

  def own(self, num):
    """(n,): distance of a reference row to its num-th nearest other."""
    if num > self._own:
      raise ValueError(f"pairs must have own >= {num}, not {self._own}")
    return self.of_reference[:, num]
