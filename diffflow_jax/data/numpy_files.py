"""Your own arrays, and precomputed latents, from NumPy files."""

import math
import zipfile

import numpy as np

from diffflow_jax.data import checks
from diffflow_jax.data.arrays import Arrays


def arrays(path, labels="", num_classes=0, scale=1.0, flip=False):
  """Examples from a .npy file (memory-mapped), or x and label of a .npz.

  Args:
    path: uint8 arrays are images, spread over [-1, 1]; floats stay as they are,
      times `scale` (0.18215 for latents of Stable Diffusion's autoencoder).
    labels: a .npy file of labels, for a .npy path.
    num_classes: 0 ignores labels.
    flip: whether to flip images at random; not for latents.
  Raises:
    ValueError: files missing or damaged, other types, labels out of range.
  """
  if not math.isfinite(scale) or scale == 0.0:
    raise ValueError(f"scale must be finite and not 0, not {scale}")
  loaded = _load(path)
  if isinstance(loaded, dict):
    x, where = _entry(loaded, "x", path), f"{path}: label"
    found = _entry(loaded, "label", path) if num_classes else None
  else:
    x, where = loaded, labels
    found = _load(labels) if num_classes else None
  if x.ndim < 2 or not x.size or not _is_known(x.dtype):
    raise ValueError(
      f"{path} must hold examples of uint8 or float, not {x.dtype} of shape "
      f"{x.shape}"
    )
  if flip and x.ndim != 4:
    raise ValueError(f"flip is for images, not examples {x.shape[1:]}")
  if num_classes:
    found = checks.check_labels(found, len(x), num_classes, where)
  max_value = 255 if x.dtype == np.uint8 else None
  return Arrays(x, found, num_classes, max_value, scale, flip)


def _is_known(dtype):
  return dtype == np.uint8 or dtype.kind == "f"


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
