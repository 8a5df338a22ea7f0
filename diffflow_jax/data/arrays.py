"""Datasets that fit in memory, read in an order that is a function of a seed.

A dataset has

    shape, num_classes               of one example; 0 classes is unlabelled
    batch(seed, step, size, ...)     dict of NumPy arrays, one process's rows
    augment(key, x)                  a random version of x, on the device
    to_float(x)                      what the network sees, on the device

The order depends on (seed, step) alone: a resumed job, or one on another number
of processes, reads the same global batches.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.lru_cache(maxsize=4)
def _permutation(seed, epoch, num):
  """The order of one epoch; a cache of a pure function, not state."""
  rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
  return rng.permutation(num)


def rows_of(process, num_processes, size):
  """This process's slice of a global batch of `size`."""
  if size % num_processes:
    raise ValueError(
      f"a batch of {size} cannot be split over {num_processes} processes"
    )
  each = size // num_processes
  return slice(process * each, (process + 1) * each)


def indices(num, seed, step, size, process=0, num_processes=1):
  """Which of num examples are this process's rows of global batch `step`.

  Each epoch is a new permutation; batches run across epochs.
  """
  position = step * size + np.arange(size)
  position = position[rows_of(process, num_processes, size)]
  epochs, offset = np.divmod(position, num)
  index = np.empty_like(offset)
  for epoch in np.unique(epochs):
    here = epochs == epoch
    index[here] = _permutation(seed, int(epoch), num)[offset[here]]
  return index


def random_flip(key, x):
  """Each image (batch, h, w, c) left to right, with probability 1/2."""
  flip = jax.random.bernoulli(key, 0.5, (x.shape[0], 1, 1, 1))
  return jnp.where(flip, x[:, :, ::-1], x)


def spread(x, max_value):
  """Integers 0 … max_value as float32 in [-1, 1]."""
  return jnp.asarray(x, jnp.float32) * (2.0 / max_value) - 1.0


@dataclasses.dataclass(frozen=True)
class Arrays:
  """Examples in memory, shuffled anew each epoch; batches run across epochs.

  Attributes:
    x: (num, ...), integers 0 … max_value, or floats; may be memory-mapped.
    labels: (num,) integers below num_classes, or None.
    max_value: the integer that means 1.0; None if x holds floats.
    scale: what floats are multiplied by for the network.
    flip: whether `augment` flips images left to right.
  """

  x: np.ndarray
  labels: np.ndarray | None = None
  num_classes: int = 0
  max_value: int | None = None
  scale: float = 1.0
  flip: bool = False

  @property
  def shape(self):
    return self.x.shape[1:]

  def batch(self, seed, step, size, process=0, num_processes=1):
    """Rows of global batch number `step`: dict(x=..., label=...)."""
    index = indices(len(self.x), seed, step, size, process, num_processes)
    batch = {"x": self.x[index]}
    if self.labels is not None:
      batch["label"] = self.labels[index]
    return batch

  def augment(self, key, x):
    """x, of any type, with random flips if the dataset asks for them."""
    return random_flip(key, x) if self.flip else x

  def to_float(self, x):
    """float32; integers travel and are spread over [-1, 1] on the device."""
    if self.max_value is None:
      return jnp.asarray(x, jnp.float32) * self.scale
    return spread(x, self.max_value)
