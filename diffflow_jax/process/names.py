"""Things by name, and numbers in their range: one sentence for each mistake."""

import functools
import inspect
import numbers

import numpy as np

from diffflow_jax.process import ranges
from diffflow_jax.process.nodes import concrete


def known_as(table, what, name):
  """table[name].

  Raises:
    ValueError: an unknown name, with the known ones.
  """
  if name not in table:
    known = ", ".join(sorted(table))
    raise ValueError(f"unknown {what} {name!r}: known are {known}")
  return table[name]


def make_from(table, what, name, kwargs, recipe=None):
  """table[name](**kwargs), with the recipe where the entry takes one.

  Raises:
    ValueError: an unknown name, an argument that the entry does not take or
      that is no number, or no recipe for an entry that needs one.
  """
  entry = known_as(table, what, name)
  taken = dict(inspect.signature(entry).parameters)
  if taken.pop("recipe", None) is not None:
    if recipe is None:
      raise ValueError(
        f"{what} {name!r} is one of a recipe: make({name!r}, recipe)"
      )
    entry = functools.partial(entry, recipe)
  for argument, value in kwargs.items():
    if argument not in taken:
      known = ", ".join(taken) or "none"
      raise ValueError(
        f"{what} {name!r} takes no {argument!r}: its arguments are {known}"
      )
    if isinstance(taken[argument].default, numbers.Real):
      ranges.check(argument, value)
  return entry(**kwargs)


def with_numbers(table, what, name, numbers):
  """table[name], a function or a dataclass, with these numbers of its own.

  Raises:
    ValueError: an unknown name, a number that it does not have or that is out
      of its range.
  """
  entry = known_as(table, what, name)
  has = [f.name for f in getattr(entry, "__dataclass_fields__", {}).values()]
  for number in numbers:
    if number not in has:
      known = ", ".join(has) or "none"
      raise ValueError(
        f"{what} {name!r} takes no {number!r}: its arguments are {known}"
      )
  return entry.replace(**numbers) if numbers else entry


def check_classes(labels, num_classes):
  """Says so where labels are known and one is no class, nor num_classes, none.

  Past the end of a table of embeddings XLA gives NaN.
  """
  if not hasattr(labels, "dtype") or not concrete(labels):
    return
  if labels.dtype.kind not in "iu" or not getattr(
    labels, "is_fully_addressable", True
  ):
    return
  values = np.asarray(labels)
  if not num_classes:
    raise ValueError("labels are given, but the network has num_classes = 0")
  bad = values[(values < 0) | (values > num_classes)]
  if bad.size:
    raise ValueError(
      f"labels must be 0 to {num_classes - 1}, or {num_classes} for none, not "
      f"{bad[0]}"
    )
