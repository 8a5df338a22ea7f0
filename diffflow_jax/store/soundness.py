"""Whether one checkpoint is what was saved, and reading it if it is.

Every checkpoint carries the checksums of its files, so that damage is found
when it is read, and that it is another network's before anything is.
"""

import jax
import numpy as np

from diffflow_jax.store import processes, seals
from diffflow_jax.store.digest import digest, name_of

DIGEST = "digest"  # the item of checksums of arrays in checkpoints until 2026


class OtherArrays(ValueError):
  """A sound checkpoint, but not of this network and optimiser."""


def load(path, step, like):
  """The items of a checkpoint, as {name: pytree}.

  Args:
    path: its directory; step: the one that it must be of.
    like: {name: pytree} of arrays or ShapeDtypeStructs to restore into, any
      part of what was saved; without a sharding, onto one device.
  Raises:
    OtherArrays: it holds other arrays; ValueError: it is damaged.
  """
  from diffflow_jax.store import storage  # Orbax is slow to import

  check(path, step, like)
  items = _together(
    lambda: {
      name: storage.load(path / name, {name: tree})[name]
      for name, tree in like.items()
    }
  )
  if not (path / seals.CHECKSUMS).exists():
    _check_digests(path, step, items)
  return items


def check(path, step, like):
  """Raises, as `load` does, unless its files are as they were saved."""
  _together(lambda: _check(path, step, like))


def _check(path, step, like):
  """Raises unless the files of what is wanted are as they were saved."""
  from diffflow_jax.store import storage

  if (path / DIGEST).exists() and not (path / seals.CHECKSUMS).exists():
    known = storage.shapes(path / DIGEST)  # saved by an older version
  else:
    said = seals.read(path)
    if said["step"] != step:
      raise ValueError(f"it is checkpoint {said['step']} under another name")
    known = {name.partition("/")[0] for name in said["files"]}
    wanted = [
      name for name in sorted(said["files"]) if name.partition("/")[0] in like
    ]
    mine = wanted[jax.process_index() :: jax.process_count()]
    seals.check(path, {name: said["files"][name] for name in mine})
  for name, tree in like.items():
    if name not in known:
      raise OtherArrays(f"checkpoint {step} holds no {name}")
    stored = storage.shapes(path / name)
    _check_same_arrays(step, stored, {name: tree})


def _check_digests(path, step, items):
  """What older versions saved: a digest of the arrays of every item."""
  from diffflow_jax.store import storage

  zero = np.zeros((), np.uint32)
  known = dict.fromkeys(storage.shapes(path / DIGEST), zero)
  known = storage.load(path / DIGEST, known)
  for name, tree in items.items():
    if int(known[name]) != int(digest(tree)):
      raise ValueError(f"the arrays of {name} do not match their digest")
  if int(items.get("step", step)) != step:
    raise ValueError(f"it is checkpoint {items['step']} under another name")


def _together(work):
  """work(), if it goes well in all processes; otherwise a ValueError in all."""
  result, wrong = None, None
  try:
    result = work()
  except ValueError as error:
    wrong = error
  if not processes.everyone(wrong is None):
    raise wrong or ValueError("another process cannot read it")
  return result


def _check_same_arrays(step, stored, wanted):
  """Refuses a checkpoint whose arrays have other names or shapes."""
  have, want = _shapes(stored), _shapes(wanted)
  for path in sorted(have.keys() ^ want.keys()):
    lacks = "lacks" if path in want else "also holds"
    raise OtherArrays(f"checkpoint {step} {lacks} the array {path}")
  for path, shape in want.items():
    if have[path] != shape:
      raise OtherArrays(
        f"{path} has shape {have[path]} in checkpoint {step}, not {shape}"
      )


def _shapes(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {name_of(path): tuple(leaf.shape) for path, leaf in leaves}
