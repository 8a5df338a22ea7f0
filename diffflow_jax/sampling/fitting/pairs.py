"""Noises and where the fine solution takes them: what a fit learns from.

Sampling goes through one padded program for all tableaus, some samples at a
time, so that a network is compiled once whatever is asked of it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.sampling import compose, noise
from diffflow_jax.sampling.tableau import as_pytree, sample


class Pairs(NamedTuple):
  """num noises z, and the samples that the reference makes of them.

  Attributes:
    predict: (z, lv, cond) -> (x̂, ε̂), a pytree.
    z, goal: (num, ...); cond: a pytree with leading axis num, or None.
    batch: samples at a time; num is a multiple of it.
    room: (N, K) that all tableaus are padded to.
  """

  predict: Any
  z: np.ndarray
  goal: np.ndarray | None
  cond: Any
  batch: int
  room: tuple

  def chunks(self):
    """(z, goal, cond) of `batch` samples after the others."""
    for first in range(0, len(self.z), self.batch):
      part = slice(first, first + self.batch)
      yield jax.tree.map(lambda a, p=part: a[p], (self.z, self.goal, self.cond))

  def first(self, num):
    """The Pairs of the first num, or of the batches that hold them."""
    num = -(-num // self.batch) * self.batch
    cut = lambda a: a[:num]
    return self._replace(
      z=cut(self.z), goal=cut(self.goal), cond=jax.tree.map(cut, self.cond)
    )

  def run(self, table):
    """The samples (num, ...) that a tableau makes of the noises, NumPy."""
    padded = compose.pad(table, *self.room)
    return np.concatenate([
      np.asarray(sample(self.predict, padded, z=z, cond=cond))
      for z, _, cond in self.chunks()
    ])  # fmt: skip

  def error(self, table):
    """Mean over samples of the RMS distance to the goal; inf, not NaN."""
    found = float(np.mean(rms(self.run(table), self.goal)))
    return found if np.isfinite(found) else np.inf


def rms(samples, goal):
  """(num,): each sample's RMS distance to its goal."""
  square = np.square(np.asarray(samples, np.float64) - goal)
  return np.sqrt(square.reshape(len(square), -1).mean(1))


def make(predict, reference, key, shape, num, *, first, cond, batch, room):
  """The Pairs of the samples first … first + num - 1 of a key.

  Args:
    reference: the fine Tableau.
    shape: of one sample; cond: with leading axis num, or None.
  """
  keys = noise.keys(key, first, num)
  dtype = jnp.result_type(float)
  sigma = jnp.asarray(reference.start.sigma)
  z = np.asarray(noise.initial(keys, sigma, tuple(shape), dtype))
  cond = jax.tree.map(np.asarray, cond)
  room = max(room[0], len(reference.target)), max(room[1], reference.num_kept)
  made = Pairs(as_pytree(predict), z, None, cond, batch, room)
  return made._replace(goal=made.run(reference))
