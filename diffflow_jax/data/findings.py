"""What cannot be meant of data, a function and a sentence each.

No run would come to anything; what is odd, and may be wanted so, is in
`oddities`.
"""

import dataclasses
from typing import Any

import numpy as np

from diffflow_jax.data import augmentation, checks, condition_findings, layout


@dataclasses.dataclass(frozen=True)
class Seen:
  """What a finding may go by: the examples looked at, and their numbers.

  Attributes:
    raw: as they are stored, (n, ...); x: as the network sees them, (n, d).
    index: of each in the data set, or None; labels: (n,), or None.
    finite: (n,), whether all its values are; sizes: (m, 2), width and height of
      some of the pictures it is made of, or None; the rest as in `Inspection`.
  """

  dataset: Any
  raw: np.ndarray
  x: np.ndarray
  labels: Any
  index: Any
  finite: np.ndarray
  constant: np.ndarray
  duplicates: float
  low: float
  high: float
  mean: float
  std: float
  counts: dict
  objective: Any = None
  sizes: Any = None


def all_of(findings, seen):
  """The sentences that apply."""
  return tuple(filter(None, (finding(seen) for finding in findings)))


def repeats(raw):
  """The share of examples that equal an earlier one, byte by byte."""
  rows = [hash(row.tobytes()) for row in np.ascontiguousarray(raw)]
  return (len(rows) - len(set(rows))) / len(rows)


def sizes(dataset, index, most=32):
  """(m, 2): width and height of some pictures that a data set resizes."""
  if not hasattr(dataset, "fit"):
    return None
  found = []
  for i in index[:most].tolist():
    try:
      image = dataset.read(i)[0]
    except Exception:  # whatever a damaged file raises: it was skipped before
      continue
    shape = np.shape(image)[1::-1] if isinstance(image, np.ndarray) else None
    found.append(image.size if shape is None else shape)
  return np.array(found) if found else None


def broken_batch(dataset, batch):
  """Why a batch is none that can be trained on, or None."""
  if not isinstance(batch, dict) or "x" not in batch:
    has = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
    return f"a batch must be a dict with x, not {has}"
  x, shape = batch["x"], tuple(dataset.shape)
  if np.shape(x)[1:] != shape:
    return (
      f"a batch's x has examples of shape {np.shape(x)[1:]}, but the shape of "
      f"the data set is {shape}"
    )
  labelled = "label" in batch
  if labelled != (dataset.num_classes > 0):
    return (
      f"a batch has {'a' if labelled else 'no'} label, but num_classes is "
      f"{dataset.num_classes}"
    )
  told = condition_findings.broken(dataset, batch)
  return told or _broken_functions(dataset, np.asarray(x)[:2])


def _broken_functions(dataset, x):
  import jax

  y = dataset.to_float(x)
  if np.shape(y) != x.shape:
    return f"to_float makes shape {np.shape(y)} of shape {x.shape}"
  if not checks.is_float(np.asarray(y).dtype):
    return f"to_float must give floats, not {np.asarray(y).dtype}"
  z, _ = augmentation.augmented_batch(dataset, jax.random.key(0), y)
  if np.shape(z) != x.shape:
    return f"augment makes shape {np.shape(z)} of shape {x.shape}"
  return None


def where(seen, which):
  """The name of the first example that which (n,) is true of."""
  first = int(np.argmax(which))
  if seen.index is None:
    return f"example {first} of those drawn with seed 0"
  return f"example {int(seen.index[first])}"


def not_finite(seen):
  """NaN and infinity, with the first example that holds one."""
  if seen.finite.all():
    return None
  bad = ~seen.finite
  value = seen.x[bad][0]
  what = "NaN" if np.isnan(value).any() else "infinity"
  return (
    f"{bad.sum()} of {len(bad)} examples hold NaN or infinity, the first is "
    f"{where(seen, bad)} ({what})"
  )


def labels_outside(seen):
  """Labels that are no integers, or outside the classes."""
  if seen.labels is None:
    return None
  labels, num = np.asarray(seen.labels), seen.dataset.num_classes
  if labels.shape != (len(seen.raw),) or labels.dtype.kind not in "iu":
    return (
      f"labels must be integers of shape ({len(seen.raw)},), not "
      f"{labels.dtype} of shape {labels.shape}"
    )
  bad = (labels < 0) | (labels >= num)
  if not bad.any():
    return None
  first = labels[bad][0]
  return f"{where(seen, bad)} has label {first}; labels must be 0 to {num - 1}"


def outside_max_value(seen):
  """Integers that are not among 0 … max_value."""
  most = getattr(seen.dataset, "max_value", None)
  if most is None or seen.raw.dtype.kind not in "iu":
    return None
  bad = (seen.raw < 0) | (seen.raw > most)
  if not bad.any():
    return None
  which = bad.reshape(len(bad), -1).any(axis=1)
  return (
    f"{where(seen, which)} holds {seen.raw[bad][0]}, but integers must be 0 "
    f"to max_value = {most}: give another, or floats and range=(low, high)"
  )


def left_unscaled(seen):
  """Integers that to_float leaves as large as they are."""
  if seen.raw.dtype.kind not in "biu" or not seen.high > layout.FAR:
    return None
  if getattr(seen.dataset, "max_value", None) is not None:
    return None  # said by `outside_max_value`
  return (
    f"the network would see {seen.low:g} to {seen.high:g}: {seen.raw.dtype} is "
    "spread over [-1, 1] by Arrays(x, max_value=255), or in your to_float"
  )


def a_mask(seen):
  """0 and 1 stored as if 255 were white."""
  if getattr(seen.dataset, "max_value", None) != 255 or seen.raw.max() != 1:
    return None
  return (
    "all values are 0 or 1 of 255, black to the network: give max_value = 1, "
    "or x.astype(bool)"
  )


def all_alike(seen):
  """Data of one value."""
  if len(seen.raw) < 2 or not seen.low == seen.high:
    return None
  return f"all values are {seen.low:g}: there is nothing to learn"


REFUSALS = (
  not_finite, labels_outside, outside_max_value, left_unscaled, a_mask,
  all_alike,
)  # fmt: skip
