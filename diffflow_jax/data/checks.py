"""What is checked of data from outside; errors name the place and the fault."""

import os

import jax.numpy as jnp
import numpy as np

from diffflow_jax.process.conditions import Condition
from diffflow_jax.store import paths

NEEDS = ("shape", "num_classes", "batch", "augment", "to_float")


def check_choice(name, value, known):
  """Refuses a value that is not among the known ones."""
  if value not in known:
    raise ValueError(
      f"{name} must be one of {', '.join(map(str, known))}, not {value!r}"
    )


def check_path(path, is_there=os.path.exists):
  """The path, if there is such a file (or directory: os.path.isdir).

  If it is in a bucket, the path of a copy on this machine, as `fetched`.
  """
  copy = fetched(path)
  if not path or not is_there(copy):
    kind = "directory" if is_there is os.path.isdir else "file"
    raise ValueError(f"there is no {kind} {path!r}")
  return copy


def fetched(path):
  """A file, a directory or a pattern of files, of a bucket on this machine."""
  try:
    return paths.fetched(path)
  except FileNotFoundError:
    return path
  except OSError as error:
    raise ValueError(f"{path} cannot be read: {paths.reason(error)}") from error


def check_dataset(dataset, name):
  """The dataset, if it is one; name is what made it.

  Raises:
    ValueError: a dict, a tuple, nothing: what is no dataset, with the remedy.
  """
  lacks = [what for what in NEEDS if not hasattr(dataset, what)]
  if lacks or isinstance(dataset, type):
    why = f", which has no {', '.join(lacks)}" if lacks else ""
    raise ValueError(
      f"{name} must be a data set, as dfj.data.Arrays(x, labels) is, not "
      f"{_kind(dataset)}{why}"
    )
  known = getattr(dataset, "conditions", None) or {}
  values = known.values() if hasattr(known, "values") else [known]
  if not all(isinstance(one, Condition) for one in values):
    raise ValueError(
      f"conditions of {name} must be a dict, as "
      f'{{"text": dfj.conditions.Condition("vector", (8,))}}, not {known!r:.60}'
    )
  return dataset


def _kind(value):
  if value is None:
    return "None"
  if isinstance(value, type):
    return f"the class {value.__name__}"
  name = type(value).__name__
  return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def check_labels(labels, num, num_classes, where):
  """int32 labels (num,), each in 0 … num_classes - 1.

  Raises:
    ValueError: another shape, type or range, with what would mend it.
  """
  labels = np.asanyarray(labels)
  _check_layout(labels, num, where)
  bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if bad.size:
    from_1 = labels.min() == 1 and labels.max() == num_classes
    hint = ": subtract 1 from all" if from_1 else ""
    raise ValueError(
      f"{where} has label {labels[bad[0]]} at example {bad[0]}; labels must "
      f"be 0 to {num_classes - 1}{hint}"
    )
  return labels.astype(np.int32)


def count_classes(labels, num, where):
  """How many classes labels (num,) name: one more than the largest.

  Raises:
    ValueError: they are no such labels, or do not start at 0.
  """
  labels = np.asanyarray(labels)
  _check_layout(labels, num, where)
  least, num_classes = int(labels.min()), int(labels.max()) + 1
  if least != 0:
    raise ValueError(
      f"{where} starts at {least}, but classes count from 0: renumber them, or "
      f"give num_classes = {num_classes} if some are only absent"
      if least > 0
      else f"{where} has label {least}; labels count from 0"
    )
  if num_classes > num:
    raise ValueError(
      f"{where} has {num_classes - 1}, for {num} examples: renumber them, as "
      "np.unique(labels, return_inverse=True)[1]"
    )
  return num_classes


def check_names(names, num_classes):
  """The names of the classes as a tuple of strings, one each, or ()."""
  if isinstance(names, str) or len(names) not in (0, num_classes):
    raise ValueError(f"class_names must be {num_classes} names, not {names!r}")
  return tuple(str(name) for name in names)


def _check_layout(labels, num, where):
  """Refuses what is no (num,) of integers, all known."""
  if isinstance(labels, np.ma.MaskedArray):
    raise ValueError(f"{where} is a masked array: leave out what has no label")
  if labels.shape == (num,) and labels.dtype.kind in "iu":
    return
  hint = ""
  if labels.shape == (num, 1):
    hint = ": give labels[:, 0]"
  elif labels.ndim == 2 and len(labels) == num and labels.dtype.kind in "iufb":
    if np.all(np.count_nonzero(labels, axis=1) == 1):
      hint = ": one-hot rows are labels.argmax(axis=1)"
  elif labels.shape == (num,) and labels.dtype.kind == "b":
    hint = ": give labels.astype(int)"
  elif labels.shape == (num,) and labels.dtype.kind == "f":
    whole = np.all(labels == np.round(labels))
    hint = ": give labels.astype(int)" if whole else ""
  elif labels.shape == (num,) and labels.dtype.kind in "USO":
    hint = ": names become np.unique(labels, return_inverse=True)[1]"
  raise ValueError(
    f"{where} must hold {num} integer labels, not {labels.dtype} of shape "
    f"{labels.shape}{hint}"
  )


def is_float(dtype):
  """Whether a dtype is a float's, bfloat16 too, which NumPy does not know."""
  return dtype.names is None and jnp.issubdtype(dtype, jnp.floating)
