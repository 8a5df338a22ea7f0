"""Datasets that fit in memory, read in an order that is a function of a seed.

A dataset has

    shape, num_classes               of one example; 0 classes is unlabelled
    conditions                       {name: Condition}, where a batch says more
                                     than labels
    batch(seed, step, size, ...)     dict of NumPy arrays, one process's rows
    augment(key, x)                  a random version of x, on the device, or it
                                   and {name: what was done} (`augmentation`)
    to_float(x)                      what the network sees, on the device

and, where it is finite, `len(dataset)` and `take(indices)`, like a batch: by
them `splits` and `inspect` reach every example. `class_names` if it has some.
`values` if the entries of what the network sees are of few values.

The order depends on (seed, step) alone: a resumed job, or one on another number
of processes, reads the same global batches.
"""

import dataclasses
import functools
import numbers

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.data import checks, given, layout
from diffflow_jax.process.conditions import with_label


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


def values(max_value):
  """(K,) what the entries of `spread` can be; None if they are over 256."""
  few = max_value is not None and max_value < 256
  return jnp.linspace(-1.0, 1.0, int(max_value) + 1) if few else None


@dataclasses.dataclass(frozen=True)
class Arrays:
  """Examples in memory, shuffled anew each epoch; batches run across epochs.

  Attributes:
    x: (num, ...), integers 0 … max_value, or floats; may be memory-mapped.
    labels: (num,) integers below num_classes, or None.
    num_classes: None counts the classes that labels name.
    max_value: the integer that means 1.0: 255 for uint8 and 1 for bool if None;
      for other integers it must be said.
    scale: what floats are multiplied by for the network; range: or the (low,
      high) that become -1 and 1. Floats beyond ±4 need one of the two.
    flip: whether `augment` flips images left to right.
    layout: the axes of x, where its shape does not say them: "NCHW" is turned
      into (num, h, w, c), "NCTHW" and "NTCHW" into (num, t, h, w, c), "NHW"
      gets its channel, "NLC" is a series.
    class_names: of the labels, or () where nobody knows them.
    given: {name: array, or (array, mask)}, further conditions, as `data.given`
      has them; kinds: {name: kind} of those whose shape may be two things.

  Raises:
    ValueError: x, labels, a condition or a setting that cannot be meant, with
      the remedy.
  """

  x: np.ndarray = dataclasses.field(repr=False)
  labels: np.ndarray | None = dataclasses.field(default=None, repr=False)
  num_classes: int | None = None
  max_value: int | None = None
  scale: float | None = None
  flip: bool = False
  range: tuple[float, float] | None = None
  layout: str | None = None
  class_names: tuple[str, ...] = ()
  given: dict = dataclasses.field(default_factory=dict, repr=False)
  kinds: dict = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    settled = dict(vars(self))
    x = layout.as_examples(self.x, self.layout)
    layout.check_scaling(x.dtype, self.scale, self.range)
    settled |= {
      "x": x,
      "max_value": layout.largest_integer(x.dtype, self.max_value),
      "layout": layout.PLAIN.get(x.ndim),  # what x has now: a copy stays so
    }
    if settled["max_value"] is None and (self.scale, self.range) == (
      None,
      None,
    ):
      layout.check_range(x)
    if self.flip and x.ndim != 4:
      raise ValueError(f"flip is for images, not examples {x.shape[1:]}")
    settled |= _checked_labels(self.labels, self.num_classes, len(x))
    names = checks.check_names(self.class_names, settled["num_classes"])
    held = given.check(self.given, self.kinds, len(x), x.shape[1:])
    given.check_flip(self.flip, {n: h.condition for n, h in held.items()})
    settled |= {"class_names": names, "given": held}
    for name, value in settled.items():
      object.__setattr__(self, name, value)

  def __len__(self):
    return len(self.x)

  @property
  def shape(self):
    return self.x.shape[1:]

  @property
  def values(self):
    return values(self.max_value)

  @property
  def conditions(self):
    """{name: Condition} of labels and of all that is given."""
    held = {name: one.condition for name, one in self.given.items()}
    return with_label(self.num_classes, held)

  def batch(self, seed, step, size, process=0, num_processes=1):
    """Rows of global batch number `step`: dict(x=..., label=..., ...)."""
    return self.take(
      indices(len(self), seed, step, size, process, num_processes)
    )

  def take(self, index):
    """The examples of an array of indices: dict(x=..., label=..., ...)."""
    x = self.x[index]
    batch = {"x": x.astype(x.dtype.newbyteorder("="), "C", copy=False)}
    if self.labels is not None:
      batch["label"] = self.labels[index]
    return batch | given.taken(self.given, index)

  def augment(self, key, x):
    """x, of any type, with random flips if the dataset asks for them."""
    return random_flip(key, x) if self.flip else x

  def to_float(self, x):
    """float32; integers travel and are spread over [-1, 1] on the device."""
    if self.max_value is not None:
      return spread(x, self.max_value)
    x = jnp.asarray(x, jnp.float32)
    if self.range is None:
      return x * (1.0 if self.scale is None else self.scale)
    low, high = self.range
    return (x - low) * (2.0 / (high - low)) - 1.0


def _checked_labels(labels, num_classes, num):
  """{labels, num_classes} of an Arrays, where they fit together."""
  is_count = isinstance(num_classes, numbers.Integral | None)
  if not is_count or isinstance(num_classes, bool):
    raise ValueError(f"num_classes must be an integer, not {num_classes!r}")
  if labels is None:
    if num_classes:
      raise ValueError(f"num_classes = {num_classes}, but labels are not given")
    return {"labels": None, "num_classes": 0}
  if num_classes is None:
    num_classes = checks.count_classes(labels, num, "labels")
  if not num_classes:
    raise ValueError("labels are given, but num_classes = 0: leave one out")
  num_classes = int(num_classes)
  labels = checks.check_labels(labels, num, num_classes, "labels")
  return {"labels": labels, "num_classes": num_classes}
