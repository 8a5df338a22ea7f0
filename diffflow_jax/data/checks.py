"""What is checked of data from outside; errors name the file and the fault."""

import os

import numpy as np

from diffflow_jax import paths


def check_choice(name, value, known):
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


def check_labels(labels, num, num_classes, where):
  """int32 labels (num,), each in 0 … num_classes - 1."""
  labels = np.asarray(labels)
  if labels.shape != (num,) or labels.dtype.kind not in "iu":
    raise ValueError(
      f"{where} must hold {num} integer labels, not {labels.dtype} of shape "
      f"{labels.shape}"
    )
  bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if bad.size:
    raise ValueError(
      f"{where} has label {labels[bad[0]]} at example {bad[0]}; labels must "
      f"be 0 to {num_classes - 1}"
    )
  return labels.astype(np.int32)
