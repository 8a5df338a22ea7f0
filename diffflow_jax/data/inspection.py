"""What a data set holds, before anything trains on it.

    found = dfj.inspect(dataset)
    print(found)

Numbers are of what the network sees, so `std` is what a recipe's `sigma_data`
should be. Small data are looked at whole, large ones in a sample spread evenly
over them, and `looked_at` says how many examples that were.
"""

import dataclasses
import math
import time

import jax
import numpy as np

from diffflow_jax.data import (
  augmentation,
  checks,
  condition_findings,
  findings,
  oddities,
)
from diffflow_jax.data.layout import spread_rows
from diffflow_jax.process import conditions

MOST_VALUES = 2**24  # looked at, of what lies in memory
MOST_READ = 512  # examples, of what is read from files or drawn
CHUNK = 64
SECONDS = 1.2  # and no more than that long


@dataclasses.dataclass(frozen=True)
class Inspection:
  """What was found in a data set.

  Attributes:
    num: how many examples, None where they are drawn without end; looked_at:
      how many of them the numbers are of.
    shape: of an example; dtype: in which it is stored.
    low, high, mean, std: of all values, as the network sees them.
    constant, not_finite: how many examples have one value only, or NaN or inf.
    duplicates: share of the examples looked at that equal an earlier one.
    class_counts: {name of the class: examples}, of all or of those looked at.
    conditions: {name: what it is, and its numbers}, beside the classes.
    made_of: how pictures of other sizes became this shape, or "".
    refusals: what cannot be meant; warnings: what is odd. A sentence each.
  """

  num: int | None
  looked_at: int
  shape: tuple[int, ...]
  dtype: str
  low: float
  high: float
  mean: float
  std: float
  constant: int
  not_finite: int
  duplicates: float
  class_counts: dict[str, int]
  conditions: dict[str, str] = dataclasses.field(default_factory=dict)
  made_of: str = ""
  refusals: tuple[str, ...] = ()
  warnings: tuple[str, ...] = ()

  def __str__(self):
    """The summary, and a line for each finding."""
    odd = [f"odd: {warning}" for warning in self.warnings]
    refused = [f"refused: {refusal}" for refusal in self.refusals]
    return "\n".join([self.summary(), *odd, *refused])

  def summary(self):
    """All of it but the findings, in one line."""
    endless = self.num is None
    s = "" if self.num == 1 else "s"
    what = "examples without end," if endless else f"{self.num:,} example{s}"
    seen = f"{self.looked_at:,} looked at"
    if self.looked_at == self.num:
      seen = "all looked at"
    parts = [
      f"{what} {self.shape} of {self.dtype}, {seen}",
      self.made_of,
      f"the network sees {self.low:.3g} to {self.high:.3g}, mean "
      f"{self.mean:.3g}, std {self.std:.3g}",
      _class_summary(self.class_counts),
      *self.conditions.values(),
    ]
    if self.duplicates:
      parts.append(f"{self.duplicates:.1%} duplicates")
    if self.constant:
      parts.append(f"{self.constant} constant")
    return "; ".join(filter(None, parts))

  def as_dict(self):
    """Plain numbers, strings and lists, and the summary, for JSON.

    What is not finite becomes None.
    """
    plain = {**dataclasses.asdict(self), "summary": self.summary()}
    for key, value in plain.items():
      if isinstance(value, float) and not math.isfinite(value):
        plain[key] = None
      if isinstance(value, tuple):
        plain[key] = list(value)
    return plain


def _class_summary(counts):
  if not counts:
    return "no classes"
  least, most = min(counts.values()), max(counts.values())
  each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
  return f"{len(counts)} classes of {each}"


def inspect(dataset, objective=None):
  """Looks at a data set, for under 2 s.

  Args:
    dataset: one of ours or of the same shape; objective: None, or the recipe
      that will train on it, whose sigma_data is compared with the data's.
  Returns:
    an Inspection; what it refuses is in it and does not raise.
  Raises:
    ValueError: it is no data set, or an example cannot be read.
  """
  checks.check_dataset(dataset, "what is looked at")
  try:
    batch, index = _look(dataset)
  except OSError as error:  # the disk's, or a link to nowhere
    why = error.strerror or error
    raise ValueError(
      f"an example cannot be read: {why}: {error.filename}"
    ) from error
  broken = findings.broken_batch(dataset, batch)
  if broken:
    return _unread(dataset, batch, broken)
  raw = np.asarray(batch["x"])
  x = np.asarray(dataset.to_float(raw), np.float32).reshape(len(raw), -1)
  finite = np.isfinite(x).all(axis=1)
  good = x[finite]
  seen = findings.Seen(
    dataset=dataset,
    raw=raw,
    x=x,
    labels=batch.get("label"),
    index=index,
    finite=finite,
    constant=(good.min(axis=1) == good.max(axis=1)) & (x.shape[1] > 1),
    duplicates=findings.repeats(raw),
    low=float(good.min()) if good.size else math.nan,
    high=float(good.max()) if good.size else math.nan,
    mean=float(good.mean(dtype=np.float64)) if good.size else math.nan,
    std=float(good.std(dtype=np.float64)) if good.size else math.nan,
    counts=_class_counts(dataset, batch.get("label")),
    sizes=findings.sizes(dataset, index),
    objective=objective,
  )
  told = condition_findings.told(dataset, batch)
  return Inspection(
    num=_num(dataset),
    looked_at=len(raw),
    shape=tuple(dataset.shape),
    dtype=str(raw.dtype),
    low=seen.low,
    high=seen.high,
    mean=seen.mean,
    std=seen.std,
    constant=int(seen.constant.sum()),
    not_finite=int((~finite).sum()),
    duplicates=seen.duplicates,
    class_counts=seen.counts,
    conditions={one.name: one.summary() for one in told},
    made_of=_made_of(seen),
    refusals=(
      *findings.all_of(findings.REFUSALS, seen),
      *condition_findings.refusals(told, index),
    ),
    warnings=(
      *findings.all_of(oddities.WARNINGS, seen),
      *condition_findings.warnings(told, batch),
    ),
  )


def as_seen(dataset, seed=0, size=64):
  """(x, labels, cond) of a batch as the network gets it: floats, augmented.

  x is (size, ...) float32 on the host; labels and cond may be None.
  """
  batch = dataset.batch(seed, 0, size)
  x, _ = augmentation.augmented_batch(
    dataset, jax.random.key(seed), dataset.to_float(batch["x"])
  )
  cond = conditions.from_batch(conditions.asked(conditions.of(dataset)), batch)
  return np.asarray(x, np.float32), batch.get("label"), cond


def _made_of(seen):
  """ "cropped to the centre and resized from sides of 20 to 50 …", or ""."""
  if seen.sizes is None:
    return ""
  how = {"crop": "cropped to the centre", "pad": "padded"}[seen.dataset.fit]
  least, most = seen.sizes.min(), seen.sizes.max()
  spread = f"{least} to {most} pixels" if least < most else f"{least} pixels"
  return f"{how} and resized ({seen.dataset.resize}) from sides of {spread}"


def _num(dataset):
  return len(dataset) if hasattr(dataset, "__len__") else None


def _unread(dataset, batch, broken):
  """An Inspection of what cannot be looked at any further."""
  x = batch.get("x") if isinstance(batch, dict) else None
  none = math.nan
  return Inspection(
    _num(dataset), 0, tuple(dataset.shape), str(getattr(x, "dtype", None)),
    none, none, none, none, 0, 0, 0.0, {}, refusals=(broken,),
  )  # fmt: skip


def _look(dataset):
  """A dict of examples, and their indices, or None where they have none."""
  if not (hasattr(dataset, "__len__") and hasattr(dataset, "take")):
    read = lambda step: dataset.batch(0, step, CHUNK)
    return _read_in_time(read, range(MOST_READ // CHUNK))[0], None
  num = len(dataset)
  if hasattr(dataset, "x"):  # in memory, or mapped into it
    known = conditions.of(dataset).values()
    size = math.prod(dataset.shape) + sum(
      math.prod(c.shape) for c in known if c.shape
    )
    most = max(1, MOST_VALUES // size)
    index = spread_rows(num, most)
    return dataset.take(index), index
  index = spread_rows(num, MOST_READ)
  # in an order that is spread evenly too, if time ends it
  index = index[
    np.random.Generator(np.random.Philox(0)).permutation(len(index))
  ]
  parts = np.array_split(index, -(-len(index) // CHUNK))
  batch, read = _read_in_time(dataset.take, parts)
  return batch, np.concatenate(parts[:read])


def _read_in_time(read, parts):
  """(the first of the parts as one dict, how many of them)."""
  start, batches = time.monotonic(), []
  for part in parts:
    batches.append(read(part))
    if not isinstance(batches[-1], dict):
      return batches[-1], 1
    if time.monotonic() - start > SECONDS:
      break
  keys = batches[0].keys()
  joined = {
    k: np.concatenate([np.asarray(b[k]) for b in batches]) for k in keys
  }
  return joined, len(batches)


def _class_counts(dataset, seen):
  """{name: number of examples}: of all where the labels of all are known."""
  if not dataset.num_classes or seen is None:
    return {}
  labels = getattr(dataset, "labels", None)
  labels = np.asarray(seen if labels is None else labels)
  if labels.ndim != 1 or labels.dtype.kind not in "iu":
    return {}
  inside = labels[(labels >= 0) & (labels < dataset.num_classes)]
  counts = np.bincount(inside, minlength=dataset.num_classes).tolist()
  names = getattr(dataset, "class_names", ()) or map(str, range(len(counts)))
  return dict(zip(names, counts, strict=True))
