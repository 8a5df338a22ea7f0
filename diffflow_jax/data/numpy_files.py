"""Your own arrays, and precomputed latents, from NumPy files."""

import logging
import zipfile

import numpy as np

from diffflow_jax.data import checks
from diffflow_jax.data.arrays import Arrays
from diffflow_jax.process.conditions import mask_name

log = logging.getLogger("diffflow_jax")

MASK = mask_name("")


def arrays(
  path, labels="", num_classes=None, scale=None, flip=False, range=None,
  max_value=None, layout=None, class_names=(), conditions=(), kinds=None,
):  # fmt: skip
  """Examples from a .npy file (memory-mapped), or x and label of a .npz.

  Args:
    path: uint8 arrays are images, spread over [-1, 1]; floats stay as they are,
      times `scale` (0.18215 for latents of Stable Diffusion's autoencoder).
    labels: a .npy file of labels, for a .npy path.
    num_classes: counted if None and there are labels; 0 ignores those of an
      .npz.
    flip: whether to flip images at random; not for latents.
    range, max_value, layout, class_names, kinds: as in `Arrays`.
    conditions: names of further arrays of an .npz, each with its mask where it
      has a <name>_mask; or, for a .npy path, {name: .npy file}, of which one
      may be called <name>_mask.
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
  given = _given(path, loaded, conditions)
  if found is not None:
    num_classes = num_classes or checks.count_classes(found, len(x), where)
    found = checks.check_labels(found, len(x), num_classes, where)
  try:
    return Arrays(
      x, found, num_classes, max_value, scale, flip, range, layout, class_names,
      given, dict(kinds or {}),
    )  # fmt: skip
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _given(path, loaded, conditions):
  """{name: array or (array, mask)} of the conditions that are asked for."""
  in_files = hasattr(conditions, "items")
  if isinstance(loaded, dict) == in_files and conditions:
    wanted = (
      "names of arrays of its own" if in_files else "a dict of .npy files"
    )
    raise ValueError(f"{path}: conditions must be {wanted}, not {conditions!r}")
  if isinstance(conditions, str):
    raise ValueError(f"conditions must be a list of names, not {conditions!r}")
  if in_files:
    held = {name: _load(file) for name, file in conditions.items()}
    for name, array in held.items():
      if isinstance(array, dict):
        raise ValueError(f"{conditions[name]} must be a .npy file of {name}")
    names = [n for n in held if n.removesuffix(MASK) == n]
  else:
    held, names = loaded, list(conditions)
    unread = _unread(loaded, names) if isinstance(loaded, dict) else []
    if unread:
      log.warning(
        "%s holds %s, which nothing reads: conditions=[%s] does",
        path,
        ", ".join(unread),
        ", ".join(f'"{name}"' for name in unread if not name.endswith(MASK)),
      )
  masked = lambda name: f"{name}{MASK}" in held
  return {
    n: (held[n], held[n + MASK]) if masked(n) else _entry(held, n, path)
    for n in names
  }


def _unread(loaded, names):
  read = {"x", "label", *names, *(name + MASK for name in names)}
  return sorted(loaded.keys() - read)


def _load(path):
  """An array, or a dict of arrays; nothing is unpickled."""
  copy = checks.check_path(path)
  try:
    with open(copy, "rb") as file:  # which numpy leaves open if it is damaged
      if file.read(2) == b"PK":
        file.seek(0)
        return dict(np.load(file, allow_pickle=False))
    return np.load(copy, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    reason = str(error).splitlines()[0]
    raise ValueError(f"{path} is damaged or truncated: {reason}") from error


def _entry(loaded, name, path):
  if name not in loaded:
    raise ValueError(
      f"{path} must have an array {name}; it has {', '.join(loaded) or 'none'}"
    )
  return loaded[name]
