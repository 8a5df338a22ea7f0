"""What can be wrong with conditions, a sentence each; labels are `findings`'s.

`broken` is about what a batch is, `refusals` and `warnings` about the numbers
in it, of examples that say something.
"""

import math

import numpy as np

from diffflow_jax.data import checks, given
from diffflow_jax.process import conditions as conditions_lib
from diffflow_jax.process.conditions import LABEL, mask_name, mask_shape

SMALL, LARGE = 0.01, 30.0  # spreads that a first layer is not made for


def _further(dataset):
  """The conditions that a batch has beside the label of its classes."""
  known = conditions_lib.asked(conditions_lib.of(dataset))
  return {name: one for name, one in known.items() if name != LABEL}


def broken(dataset, batch):
  """Why a batch does not say what the data set declares, or None."""
  label = (getattr(dataset, "conditions", None) or {}).get(LABEL)
  if label is not None and label.num_classes != dataset.num_classes:
    return (
      f"the condition label has {label.num_classes} classes, but num_classes "
      f"is {dataset.num_classes}"
    )
  for name, one in _further(dataset).items():
    why = _broken(name, one, batch, tuple(dataset.shape))
    if why:
      return why
  return None


def _broken(name, condition, batch, shape):
  if name not in batch:
    return f"a batch has no {name}, which conditions name"
  value, num = np.asarray(batch[name]), len(batch["x"])
  if value.shape != (num, *condition.shape):
    return (
      f"a batch's {name} has shape {value.shape} for {num} examples of shape "
      f"{condition.shape}"
    )
  if condition.kind == "label":
    if value.dtype.kind not in "iu":
      return f"{name} must hold integers, not {value.dtype}"
  elif not checks.is_float(value.dtype):
    return (
      f"{name} must hold floats, not {value.dtype}: give "
      f"{name}.astype(np.float32), about ±1"
    )
  if condition.kind == "image":
    why = given.misfit(condition.shape, shape)
    if why:
      return f"{name} {why}"
  if mask_name(name) not in batch:
    return None
  mask = np.asarray(batch[mask_name(name)])
  wanted = (num, *mask_shape(condition))
  if mask.shape != wanted or mask.dtype != np.bool_:
    return (
      f"{mask_name(name)} must be bools of shape {wanted}, not {mask.dtype} of "
      f"shape {mask.shape}"
    )
  return None


class Told:
  """The numbers of one condition in the examples that were looked at.

  Attributes:
    value: (n, ...); rows: (n, ...) whether they are said, of one axis more than
      a mask where that is of a sequence; said: (m, d) floats of those; dtype:
      in which it is stored.
  """

  def __init__(self, name, condition, batch, stored=None):
    self.name, self.condition = name, condition
    self.value = np.asarray(batch[name])
    self.dtype = (self.value if stored is None else stored).dtype
    mask = batch.get(mask_name(name))
    shape = (len(self.value), *mask_shape(condition))
    self.rows = np.ones(shape, bool) if mask is None else np.asarray(mask)
    said = self.value[self.rows]
    self.said = said.reshape(len(said), math.prod(said.shape[1:]))
    self.examples = self.rows.reshape(len(self.rows), -1).any(axis=1)

  def summary(self):
    """ "text: sequence (16, 384), said of 90 %, std 0.051"."""
    one = self.condition
    parts = [f"{self.name}: {one.kind} {one.shape}"]
    if one.kind == "label":
      return f"{self.name}: label of {one.num_classes} classes"
    if not self.examples.all():
      parts.append(f"said of {self.examples.mean():.0%}")
    if one.kind == "sequence" and self.examples.any():
      lengths = self.rows[self.examples].sum(axis=1)
      parts.append(f"{lengths.min()} to {lengths.max()} long")
    finite = self.said[np.isfinite(self.said)]
    if finite.size:
      parts.append(f"mean {finite.mean():.3g}, std {finite.std():.3g}")
    return ", ".join(parts)


def told(dataset, batch):
  """[Told] of a batch that is not broken."""
  held = getattr(dataset, "given", {})  # of our own arrays
  stored = {n: h.value for n, h in held.items() if isinstance(h, given.Held)}
  known = _further(dataset)
  return [Told(n, one, batch, stored.get(n)) for n, one in known.items()]


def _example(which, index):
  first = int(np.argmax(which))
  return first if index is None else int(index[first])


def refusals(found, index):
  """The sentences on what cannot be meant.

  Args:
    found: of `told`; index: of each example in the data set, or None.
  """
  for one in found:
    name, value = one.name, one.value
    if one.condition.kind == "label":
      bad = (value < 0) | (value >= one.condition.num_classes)
      if bad.any():
        yield (
          f"example {_example(bad, index)} has {name} {value[bad][0]}; it must "
          f"be 0 to {one.condition.num_classes - 1}"
        )
      continue
    if not one.examples.any():
      yield (
        f"no example says {name}: {mask_name(name)} is False everywhere, and "
        "True is what is said"
      )
      continue
    rows = one.rows.reshape(
      one.rows.shape + (1,) * (value.ndim - one.rows.ndim)
    )
    bad = (rows & ~np.isfinite(value)).reshape(len(value), -1).any(axis=1)
    if bad.any():
      yield (
        f"{name} holds NaN or infinity in {bad.sum()} of {len(bad)} examples, "
        f"the first is example {_example(bad, index)}"
      )


def warnings(found, batch):
  """The sentences on what is odd."""
  names = {name for one in found for name in (one.name, mask_name(one.name))}
  for name in sorted(batch.keys() - names - {"x", LABEL}):
    yield (
      f"a batch holds {name}, which nothing reads: conditions must name it, "
      "for the network to be told"
    )
  for one in found:
    name, said = one.name, one.said
    if len(said) > 1 and (said == said[0]).all():
      yield f"{name} is the same in all examples: it tells nothing"
      continue
    if one.dtype == np.float64:
      yield f"{name} is float64, and becomes float32: .astype(np.float32) saves"
    if one.condition.kind == "label" or not np.isfinite(said).all():
      continue
    spread = float(said.std()) if said.size else 1.0
    if not SMALL <= spread <= LARGE:
      yield (
        f"{name} has a standard deviation of {spread:.3g} ({said.min():.3g} to "
        f"{said.max():.3g}), where networks expect about 1: scale it"
      )
