"""Your own arrays, and precomputed latents, from NumPy files."""

import zipfile

import numpy as np

from diffflow_jax.data import checks
from diffflow_jax.data.arrays import Arrays


def arrays(
  path, labels="", num_classes=None, scale=None, flip=False, range=None,
  max_value=None, layout=None, class_names=(),
):  # fmt: skip
  """Examples from a .npy file (memory-mapped), or x and label of a .npz.

  Args:
    path: uint8 arrays are images, spread over [-1, 1]; floats stay as they are,
      times `scale` (0.18215 for latents of Stable Diffusion's autoencoder).
    labels: a .npy file of labels, for a .npy path.
    num_classes: counted if None and there are labels; 0 ignores those of an
      .npz.
    flip: whether to flip images at random; not for latents.
    range, max_value, layout, class_names: as in `Arrays`.
  Raises:
    ValueError: files missing or damaged, and whatever `Arrays` refuses.
  """
  loaded = _load(path)
  if isinstance(loaded, dict):
    if labels:
      raise ValueError(
        f"labels = {labels!r} has no effect: {path} is an .npz, whose labels "
        "are its own array label"
      )
    x, where = _entry(loaded, "x", path), f"{path}: label"
    ignored = num_classes == 0 or (
      num_classes is None and "label" not in loaded
    )
    found = None if ignored else _entry(loaded, "label", path)
  else:
    x, where = loaded, labels
    if labels and num_classes == 0:
      raise ValueError(f"labels = {labels!r} has no effect: num_classes is 0")
    found = _load(labels) if labels or num_classes else None
  if isinstance(found, dict):
    raise ValueError(f"{where} must be a .npy file of labels")
  if found is not None:
    num_classes = num_classes or checks.count_classes(found, len(x), where)
    found = checks.check_labels(found, len(x), num_classes, where)
  try:
    return Arrays(
      x, found, num_classes, max_value, scale, flip, range, layout, class_names
    )
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _load(path):
  """An array, or a dict of arrays; nothing is unpickled."""
  copy = checks.check_path(path)
  try:
    loaded = np.load(copy, mmap_mode="r", allow_pickle=False)
    return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    reason = str(error).splitlines()[0]
    raise ValueError(f"{path} is damaged or truncated: {reason}") from error


def _entry(loaded, name, path):
  if name not in loaded:
    raise ValueError(
      f"{path} must have an array {name}; it has {', '.join(loaded) or 'none'}"
    )
  return loaded[name]
