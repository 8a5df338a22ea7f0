"""What samples are told: conditions as a user has them, as a network's cond.

    said        {name: array, or (array, mask), or Given}; labels are integers
    cond        what a network takes: labels (num,), or a dict, of NumPy arrays

Rows are gone through over and over, as labels are. Who says something of a
sample says all of it: what is left out was not said, which a network knows only
if training dropped it.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions as conditions_lib
from diffflow_jax.process.conditions import Given, mask_name, mask_shape
from diffflow_jax.runs.settings import said as shown


def rows(cond, index):
  """The rows of a cond that an array of indices names, on the device."""
  types = {"i": jnp.int32, "b": jnp.bool_}
  one = lambda a: jnp.asarray(a[index], types.get(a.dtype.kind, jnp.float32))
  return jax.tree.map(one, cond)


def examples(dataset, seed, num, index=None):
  """A batch of the first num examples, or of those of them in index.

  Of what is drawn, a seed that training cannot have, as in held-out evaluation.
  """
  index = np.arange(num) if index is None else index
  if hasattr(dataset, "__len__") and hasattr(dataset, "take"):
    return dataset.take(index[index < len(dataset)])
  batch = dataset.batch(seed + 2**32, 0, num)
  return {name: array[index] for name, array in batch.items()}


def of_batch(conditions, batch):
  """{name: array} of all that a batch says of conditions."""
  names = {n for name in conditions for n in (name, mask_name(name))}
  return {k: np.asarray(v) for k, v in batch.items() if k in names}


def paired(arrays):
  """{name: array or (array, mask)} of arrays of a batch or of a file."""
  masks = {mask_name(name) for name in arrays} & arrays.keys()
  return {
    name: (value, arrays[mask_name(name)])
    if mask_name(name) in masks
    else value
    for name, value in arrays.items()
    if name not in masks
  }


def num_rows(settled):
  """The most rows of what `check` gives, 1 of none."""
  return max(map(_length, settled.values()), default=1)


def _length(entry):
  return len(jax.tree.leaves(entry)[0])


def _parts(entry):
  """(value, mask or None) of an entry, as arrays."""
  value, mask = entry, None
  if isinstance(entry, Given):
    value, mask = entry.value, entry.mask
  elif isinstance(entry, tuple) and len(entry) == 2:
    value, mask = entry
  return np.asarray(value), None if mask is None else np.asarray(mask)


def check(conditions, said, never, name):
  """{name: labels or Given} of what is said, each with rows of its own.

  Args:
    conditions: {name: Condition} of the data; never: names of those that
      training never dropped; name: what a message calls it all.
  Raises:
    Refusal: what is no condition of the data, of another shape or not finite;
      or one is missing that training never dropped.
  """
  if not isinstance(said, Mapping):
    raise Refusal(f"{name} must be arrays by name, not {shown(said)}")
  known = conditions_lib.asked(conditions)
  for one in said:
    if one not in known:
      has = ", ".join(known) or "none"
      raise Refusal(f"{name}: the data has no condition {one!r}, it has {has}")
  for one in never:
    if one not in said:
      raise Refusal(
        f"{name} must hold {one} too: training never dropped it, so that the "
        "network cannot do without"
      )
  settled = {}
  for one, condition in known.items():
    if one in said:
      try:
        settled[one] = _settled(condition, said[one])
      except ValueError as error:
        raise Refusal(f"{name}: {one} {error}") from error
  lengths = {one: _length(entry) for one, entry in settled.items()}
  if len(set(lengths.values()) - {1}) > 1:
    text = ", ".join(f"{n} of {one}" for one, n in lengths.items())
    raise Refusal(f"{name} must have rows of as many samples: {text}")
  return settled


def _settled(condition, entry):
  if entry is None:
    raise ValueError("is None: leave out what is not said")
  try:
    value, mask = _parts(entry)
  except (ValueError, TypeError) as error:  # a ragged list
    raise ValueError("is no array") from error
  if condition.kind == "label":
    return _labels(condition, value, mask)
  why = conditions_lib.unlike_floats(value, condition.kind)
  if why:
    raise ValueError(why)
  value = conditions_lib.floats(value)
  shape = condition.shape
  if value.ndim == len(shape):  # of one example
    value, mask = value[None], None if mask is None else mask[None]
  wanted = ", ".join(map(str, ("num", *shape)))
  if mask is None:
    mask = np.ones(
      (len(value), *value.shape[1:2][: len(mask_shape(condition))]), bool
    )
  if condition.kind == "sequence" and value.ndim == 3:
    value, mask = _padded(value, mask, shape[0])
  if value.shape[1:] != shape or not len(value):
    raise ValueError(f"must have shape ({wanted}), not {value.shape}")
  if mask.shape != (len(value), *mask_shape(condition)):
    raise ValueError(
      f"has a mask of shape {mask.shape} for values of shape {value.shape}"
    )
  if mask.dtype != np.bool_:
    raise ValueError(f"has a mask of {mask.dtype}: give mask.astype(bool)")
  value = np.where(
    mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim)), value, 0.0
  )
  bad = ~np.isfinite(value).reshape(len(value), -1).all(axis=1)
  if bad.any():
    raise ValueError(f"holds NaN or infinity in row {int(bad.argmax())}")
  return Given(value.astype(np.float32), mask)


def _padded(value, mask, length):
  """Sequences with what they lack of a length, which is not said."""
  missing = length - value.shape[1]
  if missing <= 0 or mask.ndim != 2:
    return value, mask
  return (
    np.pad(value, ((0, 0), (0, missing), (0, 0))),
    np.pad(mask, ((0, 0), (0, missing))),
  )


def _labels(condition, value, mask):
  value = np.atleast_1d(value)
  if mask is not None:
    raise ValueError("is a label, which has no mask")
  if value.ndim != 1 or value.dtype.kind not in "iu" or not value.size:
    raise ValueError("must be integers in one list")
  for label in value:
    if not 0 <= label < condition.num_classes:
      raise ValueError(f"must be 0 to {condition.num_classes - 1}, not {label}")
  return value.astype(np.int32)


def cond(conditions, settled, num_samples, name):
  """A network's cond of num_samples, of the rows that `check` gives; or None.

  Args:
    name: what a message calls the rows; None where there may be too many.
  Raises:
    Refusal: there are more rows than samples.
  """
  for one, entry in settled.items():
    if name is not None and _length(entry) > num_samples:
      raise Refusal(
        f"{name} has {_length(entry)} rows of {one} for {num_samples} samples"
      )
  repeated = lambda a: a[np.arange(num_samples) % len(a)]
  whole = {
    one: jax.tree.map(repeated, settled[one])
    if one in settled
    else _not_said(condition, num_samples)
    for one, condition in conditions_lib.asked(conditions).items()
  }
  if conditions_lib.is_label_only(conditions):
    return whole[conditions_lib.LABEL]
  return whole or None


def _not_said(condition, num):
  """The entry of a cond of num samples that says nothing."""
  if condition.kind == "label":
    return np.full(num, condition.num_classes, np.int32)
  mask = np.zeros((num, *mask_shape(condition)), bool)
  return Given(np.zeros((num, *condition.shape), np.float32), mask)


def as_arrays(cond):
  """{name: array} of a dict's cond, masks by names of their own; no label."""
  arrays = {}
  for name, entry in (cond if isinstance(cond, dict) else {}).items():
    if isinstance(entry, Given):
      arrays |= {name: entry.value, mask_name(name): entry.mask}
    elif name != conditions_lib.LABEL:
      arrays[name] = entry
  return arrays


def labels_of(cond, num_classes):
  """The labels in a cond; None where it has none, or says none."""
  labels = cond.get(conditions_lib.LABEL) if isinstance(cond, dict) else cond
  said = labels is not None and np.any(labels != num_classes)
  return labels if said else None
