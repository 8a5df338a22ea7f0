"""Conditions in memory, beside the examples that they are said of.

    Arrays(x, labels, given={"caption": (embeddings, mask), "small": images})

What each is, its shape says: integers (num,) are labels, floats (num, d)
vectors, (num, length, d) sequences, (num, *grid, c) images on x's own grid or
on one that divides it.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from diffflow_jax.data import checks, layout
from diffflow_jax.process.conditions import (
  AUGMENTATION,
  LABEL,
  Condition,
  Given,
  floats,
  mask_name,
  mask_shape,
  unlike_floats,
)

# names that a batch, or a file of samples, has for something else
TAKEN = ("x", "samples", "labels", AUGMENTATION)


@dataclasses.dataclass(frozen=True)
class Held:
  """One condition of all examples.

  Attributes:
    condition: what it is; value: (num, ...); mask: (num, ...) bools, or None
      where it is said of every example.
  """

  condition: Condition
  value: Any
  mask: Any = None


def check(given, kinds, num, shape):
  """{name: Held} of what `Arrays` is given.

  Args:
    given: {name: array, or (array, mask)}; kinds: {name: kind} where a shape
      may be two things.
    num: how many examples there are; shape: of one of them.
  Raises:
    ValueError: a name, an array or a mask that cannot be meant.
  """
  if not isinstance(given, Mapping):
    raise ValueError(
      f"given must be a dict of arrays by name, not a {type(given).__name__}"
    )
  for name in kinds:
    if name not in given:
      raise ValueError(f"kinds names {name!r}, which is not given")
  held = {}
  for name, entry in given.items():
    check_name(name)
    held[name] = _held(name, entry, kinds.get(name), num, tuple(shape))
  return held


def check_name(name):
  """Refuses what cannot be the name of a condition."""
  if not (isinstance(name, str) and name.isidentifier()):
    raise ValueError(f"a condition's name must be a word, not {name!r}")
  if name == LABEL:
    raise ValueError("the condition label is given as labels")
  if name in TAKEN or name.endswith(mask_name("")):
    raise ValueError(f"a condition cannot be called {name!r}: that is taken")


def check_flip(flip, conditions):
  """Refuses flips of x where a picture of it stays as it is."""
  for name, condition in conditions.items():
    if flip and condition.kind == "image":
      raise ValueError(
        f"flip would turn x and not its image {name}: flip both beforehand"
      )


def taken(held, index):
  """{name: array} of some examples, floats as float32, and their masks."""
  batch = {}
  for name, one in held.items():
    batch[name] = _as_told(one.condition, one.value[index])
    if one.mask is not None:
      batch[mask_name(name)] = one.mask[index]
  return batch


def of_example(conditions, said):
  """{name: (value, mask or None)} of one example, of the declared shapes.

  Raises:
    ValueError: one is missing, or not as declared.
  """
  found = {}
  for name, condition in conditions.items():
    if name not in said:
      raise ValueError(f"the condition {name} is missing")
    entry = said[name]
    value, mask = entry if isinstance(entry, tuple) else (entry, None)
    value = np.asarray(value)
    if value.shape != condition.shape:
      raise ValueError(
        f"{name} must have shape {condition.shape}, not {value.shape}"
      )
    is_label = condition.kind == "label"
    why = None if is_label else unlike_floats(value, condition.kind)
    if why:
      raise ValueError(f"{name} {why}")
    if mask is not None and np.shape(mask) != mask_shape(condition):
      raise ValueError(
        f"the mask of {name} must have shape {mask_shape(condition)}, not "
        f"{np.shape(mask)}"
      )
    found[name] = value, mask
  return found


def stacked(conditions, said):
  """{name: array} of the conditions of several examples, and their masks."""
  batch = {}
  for name, condition in conditions.items():
    values, masks = zip(*(one[name] for one in said), strict=True)
    batch[name] = _as_told(condition, np.stack(values))
    if any(mask is not None for mask in masks):
      every = np.ones(mask_shape(condition), bool)
      batch[mask_name(name)] = np.stack(
        [every if m is None else np.asarray(m, bool) for m in masks]
      )
  return batch


def _as_told(condition, value):
  if condition.kind == "label":
    return value.astype(np.int32)
  return floats(value)


def _held(name, entry, kind, num, shape):
  value, mask = entry, None
  if isinstance(entry, Given | Held):  # Held: of a copy
    value, mask = entry.value, entry.mask
  elif isinstance(entry, tuple):
    if len(entry) != 2:
      raise ValueError(f"{name} must be an array, or (array, mask)")
    value, mask = entry
  value = _array(name, value)
  if len(value) != num:
    raise ValueError(f"{name} has {len(value)} rows for {num} examples")
  if value.ndim == 3 and _is_grey(name, value, kind, shape):
    value = value[..., None]
  kind = _kind(name, value, kind, shape)
  if kind == "label":
    if mask is not None:
      raise ValueError(f"{name} is a label, which has no mask")
    num_classes = checks.count_classes(value, num, name)
    return Held(Condition("label", (), num_classes), value)
  why = unlike_floats(value, kind)
  if why:
    raise ValueError(f"{name} {why}")
  condition = Condition(kind, value.shape[1:])
  if kind == "image":
    why = misfit(value.shape[1:], shape)
    if why:
      raise ValueError(f"{name} {why}")
  return Held(condition, value, _mask(name, mask, num, condition))


def _array(name, value):
  if value is None:
    raise ValueError(
      f"{name} is None: leave it out, or give (array, mask), the mask False "
      "where nothing is said"
    )
  if isinstance(value, np.ma.MaskedArray):
    raise ValueError(f"{name} is a masked array: give (array, mask)")
  try:
    value = value if isinstance(value, np.ndarray) else np.asarray(value)
  except (ValueError, TypeError, RuntimeError) as error:
    reason = str(error).splitlines()[0]  # rows of different lengths
    raise ValueError(
      f"{name} is no array: {reason}; sequences of different lengths are "
      "padded, and given with a mask of what is said"
    ) from error
  if value.dtype.kind not in "biu" and not checks.is_float(value.dtype):
    hint = ": texts are given as the numbers of an encoder"
    known = {"U": "texts", "S": "texts", "O": "objects that are no numbers"}
    what = known.get(value.dtype.kind, value.dtype)
    raise ValueError(f"{name} holds {what}{hint if what == 'texts' else ''}")
  if not value.ndim:
    raise ValueError(
      f"{name} must have a row for each example, not be a number"
    )
  return value


def _is_grey(name, value, kind, shape):
  """Whether (num, h, w) are pictures of one channel, as x's may be."""
  if len(shape) != 3:
    return False
  if kind is None and value.dtype != np.uint8:
    if _ratio(value.shape[1:], shape[:-1]) is None:
      return False
    raise ValueError(
      f"{name} of shape {value.shape} may be a sequence or, beside images, one "
      f'of one channel: say kinds={{"{name}": "sequence"}} or "image"'
    )
  return kind in (None, "image")


def _kind(name, value, kind, shape):
  """What the shape says, where it says one thing."""
  known = {1: ("label",), 2: ("vector",), 3: ("sequence",)}
  if len(shape) == 2:  # x is a series
    known[3] = ("sequence", "image")
  able = known.get(value.ndim, ("image",))
  if kind is not None:
    if kind not in able:
      raise ValueError(
        f"{name} of shape {value.shape} is a {' or '.join(able)}, not {kind!r}"
      )
    return kind
  if len(able) > 1:
    raise ValueError(
      f"{name} of shape {value.shape} may be a sequence or, beside series, an "
      f'image: say kinds={{"{name}": "sequence"}} or "image"'
    )
  if able == ("label",) and value.dtype.kind not in "iu":
    raise ValueError(
      f"{name} holds one number for each example: give it as a vector, "
      f"{name}[:, None]"
    )
  return able[0]


def misfit(shape, of):
  """Why an image condition does not fit examples of a shape, or None."""
  grid, wanted = shape[:-1], of[:-1]
  if _is_channels_first(shape, wanted):
    return (
      f"of shape {shape} looks as if channels came first: give "
      "np.moveaxis(images, 1, -1)"
    )
  fits = len(grid) == len(wanted) and all(
    side and not whole % side for side, whole in zip(grid, wanted, strict=True)
  )
  if fits:
    return None
  ours, theirs = ("x".join(map(str, g)) for g in (grid, wanted))
  return f"is on a grid of {ours}, which does not divide x's of {theirs}"


def _is_channels_first(shape, wanted):
  """Whether channels come first: by the shape alone, or by x's grid."""
  if len(shape) == 3 and layout.looks_channels_first(shape):
    return True
  few = shape[0] <= layout.MOST_CHANNELS
  as_it_is, turned = _ratio(shape[:-1], wanted), _ratio(shape[1:], wanted)
  return few and as_it_is is None and turned is not None


def _ratio(grid, wanted):
  """How much coarser a grid is, along each axis alike; None if it is not."""
  ratios = {w / g if g else 0 for g, w in zip(grid, wanted, strict=False)}
  alike = len(grid) == len(wanted) and len(ratios) == 1
  ratio = ratios.pop() if alike else 0
  return int(ratio) if ratio and ratio == int(ratio) else None


def _mask(name, mask, num, condition):
  if mask is None:
    return None
  mask, wanted = np.asarray(mask), (num, *mask_shape(condition))
  if mask.shape != wanted:
    raise ValueError(
      f"the mask of {name} must have shape {wanted}, not {mask.shape}"
    )
  if mask.dtype != np.bool_:
    raise ValueError(
      f"the mask of {name} must hold bools, True where it is said, not "
      f"{mask.dtype}: give mask.astype(bool)"
    )
  return mask
