"""What is odd about data and may be meant, a function and a sentence each."""

import numpy as np

from diffflow_jax.data import checks, layout
from diffflow_jax.data.findings import where

MOST_APART = 1.5  # of the data's std and a recipe's sigma_data
NARROW = 0.2  # a standard deviation
MOST_DUPLICATES = 0.01
OUTLIER = 20.0  # as far as no value comes of data of a spread about 1
MOST_LOST = 0.35  # of the area, by cropping: 3:2 photographs lose a third


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
    f"{where(seen, bad)} holds values beyond ±{OUTLIER:g} ({seen.low:.3g} to "
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
    f"{where(seen, which)}"
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


WARNINGS = (
  same_batches, none_negative, far_out, channels_first, dark,
  constant_examples, many_duplicates, much_cropped, enlarged, empty_classes,
  one_class, narrow, another_sigma_data,
)  # fmt: skip
