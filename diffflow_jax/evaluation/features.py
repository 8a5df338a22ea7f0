"""Sets of feature vectors: what is refused, and how a set is cut in parts.

A set is an array (num, ...) whose rows are flattened; float32 stays float32,
and an array on disk (np.memmap) is read in slices.
"""

import warnings

import numpy as np

_CHUNK = 4096  # rows that are looked at together
_LARGEST = {"float32": 1e15, "float64": 1e100}  # whose squares can be added


def slices(num, size):
  """Slices of at most `size` that cover range(num)."""
  return [slice(i, min(i + size, num)) for i in range(0, num, size)]


def rows(name, features, least=1):
  """The set as (num, d) of float32 or float64.

  Raises:
    TypeError: no numbers.
    ValueError: fewer than `least` rows, no columns, entries that are NaN,
      infinite, or too large to be squared.
  """
  if isinstance(features, str | bytes | dict) or hasattr(features, "_fields"):
    raise TypeError(
      f"{name} must be an array of rows, not a {type(features).__name__}"
    )
  if not isinstance(features, np.ndarray):
    features = np.asarray(features)
  if features.dtype.kind not in "fiub" and features.dtype.name != "bfloat16":
    raise TypeError(f"{name} must be numbers, not {features.dtype}")
  if features.dtype not in (np.float32, np.float64):
    features = features.astype(np.float64)
  if features.ndim < 1 or len(features) < least or 0 in features.shape[1:]:
    raise ValueError(
      f"{name} must be an array of at least {least} rows, "
      f"not of shape {features.shape}"
    )
  features = features.reshape(len(features), -1)
  odd = sum(
    int((~np.isfinite(features[s])).any(1).sum())
    for s in slices(len(features), _CHUNK)
  )
  if odd:
    raise ValueError(
      f"{name} must be finite, but {odd} of its {len(features)} rows hold NaN "
      "or infinite entries"
    )
  limit = _LARGEST[features.dtype.name]
  largest = max(
    max(-float(features[s].min()), float(features[s].max()))
    for s in slices(len(features), _CHUNK)
  )
  if largest > limit:
    raise ValueError(
      f"{name} must be at most {limit:g} in {features.dtype}, so that squares "
      f"can be added, not {largest:g}"
    )
  return features


def same_width(samples, reference):
  """Refuses sets of rows of different length, by their last axis.

  Raises:
    ValueError: they differ.
  """
  if samples[-1] != reference[-1]:
    raise ValueError(
      f"samples have {samples[-1]} dimensions and the reference has "
      f"{reference[-1]}; features of one network at one resolution are needed"
    )


def pair(samples, reference, least=1):
  """Both sets as `rows`, of one width and one dtype (the wider)."""
  samples = rows("samples", samples, least)
  reference = rows("reference", reference, least)
  same_width(samples.shape, reference.shape)
  wide = np.promote_types(samples.dtype, reference.dtype)
  return samples.astype(wide, copy=False), reference.astype(wide, copy=False)


def compared(samples, reference, least=1):
  """A `pair` of what is to be told apart.

  Warns:
    One of the two, or both, in which there is nothing to be seen.
  """
  samples, reference = pair(samples, reference, least)
  for name, x in (("samples", samples), ("reference", reference)):
    if len(x) > 1 and _same(x, x[:1]):
      nothing_varies(name, len(x))
  if samples.shape == reference.shape and _same(samples, reference):
    warnings.warn(
      f"samples and reference are the same {len(samples)} rows, which no "
      "metric can tell apart",
      stacklevel=4,
    )
  return samples, reference


def nothing_varies(name, num):
  """Warns of a set whose rows are all alike."""
  warnings.warn(
    f"the {num} rows of {name} are all the same, so errors and distances that "
    "are 0 here say nothing",
    stacklevel=5,
  )


def _same(x, y):
  """Whether all rows are those of y, or its only one; mostly seen at once."""
  pieces = slices(len(x), _CHUNK)
  return all((x[s] == (y if len(y) == 1 else y[s])).all() for s in pieces)


def _mixed(index):
  """A well-mixed word for each word (n,) of uint64: Steele et al. 2014."""
  z = index * np.uint64(0x9E3779B97F4A7C15)
  z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return z ^ (z >> np.uint64(31))


def part_of(num, parts):
  """Which of the disjoint parts each of num rows is in, at random, (num,).

  Parts are equal to one row. A function of the two numbers alone.
  """
  place = np.empty(num, np.int64)
  order = np.argsort(_mixed(np.arange(num, dtype=np.uint64)))
  place[order] = np.arange(num) % parts
  return place


def dealt(num, parts, first=0):
  """`part_of` for a stream: rows first, …, first + num - 1 of no known end.

  Every run of `parts` rows is dealt out in a random order of its own, so parts
  are equal to one row and the same however the rows are chunked.
  """
  skip = first % parts
  runs = -(-(skip + num) // parts)
  index = np.arange(runs * parts, dtype=np.uint64) + np.uint64(first - skip)
  place = np.argsort(_mixed(index).reshape(runs, parts), axis=1)
  return place.reshape(-1)[skip : skip + num]
