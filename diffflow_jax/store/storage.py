"""One checkpoint on disk or in a bucket, by Orbax: what knows it lies here.

A checkpoint is a directory with one Orbax pytree an item and a sealed record of
the checksums of all their files, written before the directory gets its name.
"""

import contextlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from diffflow_jax.store import orbax_s3, paths, seals
from diffflow_jax.store.orbax_errors import hush, quietly

UNFINISHED = ".orbax-checkpoint-tmp"  # what Orbax calls a save under way
OF_ORBAX = "_CHECKPOINT_METADATA"  # it writes this one after the seal


def _ask_for_no_statistics():
  """What TensorStore tells of its counters is never freed (0.1.86).

  Orbax asks for them, for its log, four times an item: 12 kB of every save.
  """
  with contextlib.suppress(ImportError):
    from orbax.checkpoint._src.serialization import tensorstore_utils

    if hasattr(tensorstore_utils, "get_tensorstore_raw_bytes"):
      tensorstore_utils.get_tensorstore_raw_bytes = lambda *args: 0


hush()
_ask_for_no_statistics()


def _use(path):
  """Makes a bucket known to Orbax, if it is one."""
  if paths.is_remote(path):
    paths.use(str(path))
  if str(path).startswith("s3://"):
    orbax_s3.teach()


class _Handler(ocp.CompositeCheckpointHandler):
  """Seals a checkpoint once all its files are there."""

  said = {}

  def finalize(self, directory):
    super().finalize(directory)
    seals.write(directory, but=OF_ORBAX, **self.said)


@ocp.args.register_with_handler(_Handler, for_save=True, for_restore=True)
class _Args(ocp.args.Composite):
  """The arguments that Orbax looks for beside a handler."""


class Saver:
  """Saves in the background, one checkpoint at a time.

  `AsyncCheckpointer` and not Orbax's newer interface, whose saves each leave
  three file descriptors and a thread behind (0.12.8).
  """

  def __init__(self):
    self._handler = _Handler()
    self._inner = ocp.AsyncCheckpointer(self._handler)

  def start(self, path, items, **said):
    """Begins to save {name: pytree}, which may be donated once this returns."""
    _use(path)
    self._handler.said = said
    args = {k: ocp.args.StandardSave(tree) for k, tree in items.items()}
    self._inner.save(path, args=_Args(**args))

  def wait(self):
    """Waits for the save under way; raises what went wrong with it."""
    self._inner.wait_until_finished()

  def close(self):
    self._inner.close()


def shapes(path):
  """The pytree of an item with the shape and dtype of every array.

  Raises:
    ValueError: it cannot be read.
  """
  _use(path)
  read = ocp.StandardCheckpointHandler().metadata
  return quietly(lambda: read(path).tree)


def load(path, like):
  """An item of a checkpoint.

  Args:
    like: its pytree of arrays or ShapeDtypeStructs; without a sharding, onto
      one device, and what is NumPy comes as NumPy.
  Raises:
    ValueError: it cannot be read.
  """
  _use(path)
  default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def wanted(x):
    if isinstance(x, np.ndarray):
      return x
    where = getattr(x, "sharding", None) or default
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

  args = ocp.args.StandardRestore(jax.tree.map(wanted, like))
  read = ocp.StandardCheckpointHandler().restore
  return quietly(lambda: read(path, args=args))


def is_finished(path):
  """Whether a save into a path has come to its end."""
  _use(path)
  return path.is_dir() and ocp.utils.is_checkpoint_finalized(path)
