"""What can be wrong with data, a function and a sentence each.

A refusal cannot be meant: no run would come to anything. A warning is odd, and
somebody may want it so.
"""

import dataclasses
from typing import Any

import numpy as np

from diffflow_jax.data import augmentation, checks, condition_findings, layout

MOST_APART = 1.5  # of the data's std and a recipe's sigma_data
NARROW = 0.2  # a standard deviation
MOST_DUPLICATES = 0.01
OUTLIER = 20.0  # as far as no value comes of data of a spread about 1
MOST_LOST = 0.35  # of the area, by cropping: 3:2 photographs lose a third


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


def _where(seen, which):
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
    f"{_where(seen, bad)} ({what})"
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
  return f"{_where(seen, bad)} has label {first}; labels must be 0 to {num - 1}"


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
    f"{_where(seen, which)} holds {seen.raw[bad][0]}, but integers must be 0 "
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


def same_batches(seen):
  """A data set of one's own whose batch does not depend on the step."""
  if seen.index is not None:
    return None
  one, two = (seen.dataset.batch(0, step, 8)["x"] for step in (0, 1))
  if not np.array_equal(one, two):
    return None
  return "batches 0 and 1 are the same: batch(seed, step, ...) ignores its step"


def _is_affine(seen):
  """Whether the values are floats that nobody said the range of."""
  ours = seen.dataset
  said = getattr(ours, "scale", None) or getattr(ours, "range", None)
  return checks.is_float(seen.raw.dtype) and not said


def none_negative(seen):
  """Floats from 0 on that nobody said the range of."""
  if not (_is_affine(seen) and seen.low >= 0.0 and seen.high > 0.0):
    return None
  return (
    f"all values are {seen.low:.3g} to {seen.high:.3g}, none below 0, though "
    f"noise is centred: range=(0, {1 if seen.high <= 1 else seen.high:g}) "
    "spreads them over [-1, 1]"
  )


def far_out(seen):
  """Values where no recipe expects any."""
  good = seen.x[seen.finite]
  share = np.mean(np.abs(good) > layout.FAR) if good.size else 0.0
  if not share > layout.FEW:
    return _outlier(seen)
  return (
    f"{share:.1%} of the values are beyond ±{layout.FAR:g} ({seen.low:.3g} to "
    f"{seen.high:.3g}), where recipes expect about ±1"
  )


def _outlier(seen):
  """A value that single examples have, and no other comes near."""
  bad = seen.finite & (np.abs(seen.x) > OUTLIER).any(axis=1)
  if not bad.any():
    return None
  return (
    f"{_where(seen, bad)} holds values beyond ±{OUTLIER:g} ({seen.low:.3g} to "
    f"{seen.high:.3g} in all), where hardly any other is beyond ±{layout.FAR:g}"
  )


def channels_first(seen):
  """Images whose channels seem to come first."""
  shape = tuple(seen.dataset.shape)
  ours = getattr(seen.dataset, "layout", None) in layout.PLAIN.values()
  if len(shape) not in (3, 4) or ours or not layout.looks_channels_first(shape):
    return None
  return f"examples of shape {shape} look as if channels came first, not last"


def dark(seen):
  """Integers that reach less than a quarter of what means white."""
  most = getattr(seen.dataset, "max_value", None)
  most = 255 if most is None and seen.raw.dtype == np.uint8 else most
  largest = seen.raw.max()
  if seen.raw.dtype.kind not in "iu" or not most or largest > most / 4:
    return None
  if seen.low == seen.high:
    return None
  ours = hasattr(seen.dataset, "max_value")
  return f"the largest value is {largest} of {most}, so all is dark" + (
    ": if white is less, give max_value" * ours
  )


def constant_examples(seen):
  """Single examples of one value."""
  num = int(seen.constant.sum())
  if not num or seen.low == seen.high or seen.x.shape[1] < 2:
    return None
  which = np.zeros(len(seen.finite), bool)
  which[np.flatnonzero(seen.finite)[seen.constant]] = True
  return (
    f"{num} of {len(seen.raw)} examples have one value only, the first is "
    f"{_where(seen, which)}"
  )


def many_duplicates(seen):
  """Examples that were there before."""
  if seen.index is None or seen.duplicates <= MOST_DUPLICATES:
    return None
  return f"{seen.duplicates:.0%} of the examples equal an earlier one"


def much_cropped(seen):
  """Pictures that lose much of their area."""
  if seen.sizes is None or seen.dataset.fit != "crop":
    return None
  lost = 1.0 - np.mean(seen.sizes.min(axis=1) / seen.sizes.max(axis=1))
  if lost <= MOST_LOST:
    return None
  return (
    f'cropping loses {lost:.0%} of the pictures\' area: fit="pad" keeps all '
    "of it"
  )


def enlarged(seen):
  """Pictures smaller than what they are made to be."""
  if seen.sizes is None:
    return None
  side = seen.dataset.size
  small = np.mean(seen.sizes.min(axis=1) < side)
  if not small:
    return None
  return f"{small:.0%} of the pictures are smaller than {side}x{side}: enlarged"


def empty_classes(seen):
  """Classes that are named and never drawn."""
  known = getattr(seen.dataset, "labels", None) is not None
  empty = [name for name, count in seen.counts.items() if not count]
  if not (known and empty):
    return None
  some = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
  return f"{len(empty)} of {len(seen.counts)} classes have no example: {some}"


def one_class(seen):
  """Labels that tell nothing."""
  if seen.labels is None or len(seen.raw) < 2 or len(seen.counts) != 1:
    return None
  return f"all examples are of one class, {next(iter(seen.counts))}"


def _sigma_data(objective):
  """[what a recipe's scale or target is told of the data's spread]."""
  parts = [getattr(objective, name, None) for name in ("scale", "target")]
  known = [getattr(part, "sigma_data", None) for part in parts]
  return [float(value) for value in known if value is not None]


def narrow(seen):
  """Floats of little spread, as latents have that were scaled twice."""
  floats = checks.is_float(seen.raw.dtype)
  if not (floats and 0.0 < seen.std < NARROW) or _sigma_data(seen.objective):
    return None
  return (
    f"the standard deviation is {seen.std:.3g}, where recipes without "
    f"sigma_data expect about 0.5 to 1: a scale {1 / seen.std:.3g} times as "
    "large makes it 1"
  )


def another_sigma_data(seen):
  """A recipe's sigma_data, of its scale or target, beside the data's std."""
  known = _sigma_data(seen.objective)
  if not known or not seen.std > 0.0:
    return None
  apart = max(known[0] / seen.std, seen.std / known[0])
  if apart <= MOST_APART:
    return None
  return (
    f"the recipe's sigma_data is {known[0]:.3g}, but the data's standard "
    f"deviation is {seen.std:.3g}: set objective.sigma_data to that"
  )


REFUSALS = (
  not_finite, labels_outside, outside_max_value, left_unscaled, a_mask,
  all_alike,
)  # fmt: skip
WARNINGS = (
  same_batches, none_negative, far_out, channels_first, dark,
  constant_examples, many_duplicates, much_cropped, enlarged, empty_classes,
  one_class, narrow, another_sigma_data,
)  # fmt: skip
