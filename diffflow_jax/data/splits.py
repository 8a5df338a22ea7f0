"""Held-out examples: a deterministic split, and no example in both parts.

    split        any data set with len() and take(): a fixed shuffle, cut in two
    overlap      examples of one that are also in the other, by content
    held_out     what a config's `held_out` means

What is drawn without end, as the toys are, has no examples to split: another
seed draws others.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from diffflow_jax.data.layout import spread_rows
from diffflow_jax.process import conditions

SEED = 0  # of the shuffle that a split cuts: the same for every run
MOST_EVALUATED = 4096  # of a fraction of a large data set
MOST_BYTES = 2**28  # of training examples that are compared one by one
MOST_DECODED = 128  # and of those that are read from files
FEW = 0.01  # the share that real data sets have in both of their own parts


@dataclasses.dataclass(frozen=True)
class Subset:
  """Some examples of a data set, with all else that it has."""

  dataset: Any
  index: np.ndarray

  def __len__(self):
    return len(self.index)

  def __getattr__(self, name):
    if name in ("dataset", "index"):  # while copied or unpickled
      raise AttributeError(name)
    return getattr(self.dataset, name)

  def batch(self, seed, step, size, process=0, num_processes=1):
    """Rows of global batch number `step`, as `Arrays` shuffles them."""
    from diffflow_jax.data.arrays import indices

    return self.take(
      indices(len(self), seed, step, size, process, num_processes)
    )

  def take(self, index):
    """The examples of an array of indices: dict(x=..., label=...)."""
    return self.dataset.take(self.index[index])

  def subset(self, index):
    """Some of these."""
    return Subset(self.dataset, self.index[index])

  @property
  def labels(self):
    """Of all of these, where the data set knows its own; or None."""
    labels = getattr(self.dataset, "labels", None)
    return None if labels is None else labels[self.index]


def subset(dataset, index):
  """The examples of an array of indices as a data set of their own."""
  if hasattr(dataset, "subset"):
    return dataset.subset(index)
  return Subset(dataset, index)


def is_finite(dataset):
  """Whether it has examples that can be counted and taken."""
  return hasattr(dataset, "__len__") and hasattr(dataset, "take")


def split(dataset, num=None, fraction=None):
  """(training part, held-out part): the same two for the same data.

  The last num, or that fraction, of a fixed shuffle are held out. Training
  examples that equal one of them are left out of both, where the data lie in
  memory or are small enough to be compared.

  Raises:
    ValueError: the data set cannot be split, or not so: num or fraction leaves
      nothing on one side.
  """
  if not is_finite(dataset):
    raise ValueError(
      f"a {type(dataset).__name__} cannot be split: it has no len() and "
      "take(indices)"
    )
  total = len(dataset)
  num = count(total, num, fraction)
  rng = np.random.Generator(np.random.Philox(key=SEED))
  order = rng.permutation(total)
  train, held = np.sort(order[:-num]), np.sort(order[-num:])
  if _is_comparable(dataset):
    train = train[~_among(dataset, train, held)]
    if not train.size:
      raise ValueError(
        "every example of the data set equals one that would be held out"
      )
  return subset(dataset, train), subset(dataset, held)


def count(total, num=None, fraction=None):
  """How many of total are held out by num or by fraction.

  Raises:
    ValueError: it is none, or all.
  """
  if (num is None) == (fraction is None):
    raise ValueError("give one of num and fraction")
  if fraction is not None:
    if not (isinstance(fraction, float) and 0.0 < fraction < 1.0):
      raise ValueError(f"fraction must be in (0, 1), not {fraction!r}")
    num = max(1, round(fraction * total))
  if not 0 < num < total:
    raise ValueError(
      f"{num} of {total} examples cannot be held out: some must be left to "
      "train on"
    )
  return num


def held_out(dataset, settings, make):
  """(training data, (held-out data, how many of it) or None) of a config.

  Without settings that name other data, num or fraction of the data set itself
  are held out of training; with them, as split="test", num of what they name.

  Args:
    settings: num or fraction, and settings over the data set's own.
    make: settings -> the data set that has them.
  Raises:
    ValueError: it cannot be split so, or the data named are not alike.
  """
  settings = dict(settings)
  num, fraction = settings.pop("num", None), settings.pop("fraction", None)
  if not num and fraction is None:
    return dataset, None
  if not settings and is_finite(dataset):
    train, held = split(dataset, num, fraction)
    return train, (held, min(len(held), MOST_EVALUATED))
  if fraction is not None:
    what = ", ".join(settings) or f"a {type(dataset).__name__}"
    raise ValueError(f"fraction splits a data set itself; with {what} give num")
  held = make(settings) if settings else dataset
  for what in ("shape", "num_classes"):
    ours, theirs = getattr(dataset, what), getattr(held, what)
    if ours != theirs:
      raise ValueError(f"its {what} is {theirs}, the training data's {ours}")
  ours, theirs = conditions.of(dataset), conditions.of(held)
  for name in ours.keys() | theirs.keys():
    one, other = ours.get(name), theirs.get(name)
    if one != other:
      raise ValueError(
        f"its condition {name} is {other}, the training data's {one}"
      )
  if hasattr(held, "__len__") and num > len(held):
    raise ValueError(f"num = {num}, but the held-out data has {len(held)}")
  return dataset, (held, num)


def check_apart(train, held, num):
  """Refuses held-out examples that are training examples.

  Raises:
    ValueError: more than one in a hundred is, of those that `overlap` compares;
      so many are in both parts of well-known data.
  """
  share = overlap(train, held, num)
  if share > FEW:
    raise ValueError(
      f"{share:.0%} of the held-out examples that were compared are training "
      "examples: give num or fraction alone, to split the data, or settings "
      "that name other data"
    )


def overlap(train, held, num):
  """The share of num held-out examples that are training examples.

  By content where one can compare all of them, by name where they are files,
  else of a sample of both: 0 is then no proof.
  """
  names = [getattr(d, "name", None) for d in (train, held)]
  if all(map(callable, names)):
    ours = {names[0](i) for i in range(len(train))}
    theirs = {names[1](i) for i in range(len(held))}
    if ours & theirs:
      return len(ours & theirs) / len(theirs)
  known = _contents(_some(train))
  looked_at = _some(held, num)
  found = [content in known for content in _rows(looked_at)]
  return float(np.mean(found)) if found else 0.0


def _some(dataset, num=None):
  """x of num examples, or of as many as may be compared."""
  if not is_finite(dataset):
    # what is drawn: of the seed that held-out data has, or of another one
    seed, size = (0, MOST_EVALUATED) if num is None else (2**32, num)
    return dataset.batch(seed, 0, size)["x"]
  most = len(dataset) if num is None else num
  if not _is_comparable(dataset):
    most = min(most, MOST_DECODED)
  return dataset.take(spread_rows(len(dataset), most))["x"]


def _is_comparable(dataset):
  """Whether all examples can be compared: in memory, and not too many."""
  x = getattr(dataset, "x", None)
  return getattr(x, "nbytes", math.inf) <= MOST_BYTES


def _among(dataset, train, held):
  """Whether each of the training examples equals a held-out one."""
  contents = _contents(dataset.take(held)["x"])
  rows = _rows(dataset.take(train)["x"])
  return np.array([row in contents for row in rows], bool)


def _contents(x):
  return set(_rows(x))


def _rows(x):
  """A hash of the bytes of each example."""
  return [hash(row.tobytes()) for row in np.ascontiguousarray(x)]
