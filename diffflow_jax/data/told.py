"""A data set whose examples are told of by more than their class.

    Told(dataset, conditions, tell)

tell(batch, u) makes the conditions of a batch of the inner data set; u (batch,)
are uniform numbers, for what is chosen at random: drawn anew in every batch
that is trained on, and fixed for each example that is taken by its index.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np

from diffflow_jax.data.arrays import indices, rows_of


@dataclasses.dataclass(frozen=True)
class Told:
  """A data set in memory, and named conditions of its examples.

  Attributes:
    dataset: with len() and take(), as `Arrays`; conditions: {name: Condition}
      of what batches hold, `label` too if the network is to have it.
    tell: (batch, u) -> {name: array}, of one row for each example.
  """

  dataset: Any
  conditions: dict
  tell: Callable

  def __len__(self):
    return len(self.dataset)

  @property
  def shape(self):
    return self.dataset.shape

  @property
  def x(self):
    """Of all examples: they lie in memory."""
    return self.dataset.x

  @property
  def num_classes(self):
    return self.dataset.num_classes if "label" in self.conditions else 0

  @property
  def class_names(self):
    return self.dataset.class_names if "label" in self.conditions else ()

  def batch(self, seed, step, size, process=0, num_processes=1):
    """Rows of global batch number `step`: dict(x=..., and the conditions)."""
    rng = np.random.Generator(np.random.Philox(key=[seed, step]))
    u = rng.random(size)[rows_of(process, num_processes, size)]
    index = indices(len(self), seed, step, size, process, num_processes)
    return self._told(index, u)

  def take(self, index):
    """The examples of an array of indices, as in a batch."""
    rng = np.random.Generator(np.random.Philox(key=0))
    return self._told(index, rng.random(len(self))[index])

  def augment(self, key, x):
    """x itself: what is told of it would change too."""
    return x

  def to_float(self, x):
    return self.dataset.to_float(x)

  def _told(self, index, u):
    batch = self.dataset.take(index)
    told = self.tell(batch, u)
    names = {"x"} | self.conditions.keys()
    return {k: v for k, v in {**batch, **told}.items() if k.split("_mask")[0] in names}
