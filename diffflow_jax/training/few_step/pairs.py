"""Pairs made ahead: noise, and what the teacher makes of it, in the workdir.

    pairs/00000.npz   x (CHUNK, ...) and what the teacher was told, of the pairs
                      0 … CHUNK - 1; their noise is a function of (seed, index)

Each file is written whole or not at all and is a function of its number, so a
killed generation goes on to the same bytes. Of several processes, process p
makes the files p, p + processes, …
"""

import logging
import os

import jax
import numpy as np

from diffflow_jax.cli import Failure
from diffflow_jax.data import arrays
from diffflow_jax.process import conditions
from diffflow_jax.runs import conditions_file, memory, sharding
from diffflow_jax.sampling.tableau import sample
from diffflow_jax.store import paths, processes
from diffflow_jax.training.few_step.method import pair_key

log = logging.getLogger("diffflow_jax")

FOLDER = "pairs"
CHUNK = 256


def pairs(run):
  """The Pairs of a TrainingRun, or None where none are made ahead."""
  method = run.method
  return None if method is None or not method.has_pairs else Pairs(run)


class Pairs:
  """The pairs of a run: read like a data set, by `batch`."""

  def __init__(self, run):
    self._run, self._arrays = run, None
    self.num = run.method.kind.pairs

  def __len__(self):
    return self.num

  def batch(self, seed, step, size, process=0, num_processes=1):
    """Rows of global batch number `step`: dict(x=..., index=..., ...)."""
    index = arrays.indices(self.num, seed, step, size, process, num_processes)
    rows = {name: array[index] for name, array in self._arrays.items()}
    return {**rows, "index": index.astype(np.int32)}

  def make(self, workdir, note=lambda line: None):
    """Makes what is missing in the workdir, and reads all of it.

    Raises:
      Failure: a file cannot be written or read.
    """
    example = 4 * int(np.prod(self._run.card.shape))
    example += memory.of_conditions(self._run.card.conditions)
    what = f"config.method.pairs = {self.num}"
    memory.need(what, self.num * example, memory.host())
    chunks = range(-(-self.num // CHUNK))
    mine = chunks[jax.process_index() :: jax.process_count()]
    missing = [c for c in mine if _read(_path(workdir, c)) is None]
    if missing:
      note(f"makes {len(missing)} of {len(mine)} files of pairs")
    if missing:
      predict, where = self._placed()
      for chunk in missing:
        self._write(workdir, chunk, predict, where)
    processes.everyone(True)  # waits
    parts = [_read(_path(workdir, c)) for c in chunks]
    if any(part is None for part in parts):
      raise Failure(f"{paths.join(workdir, FOLDER)} lacks pairs that were made")
    self._arrays = {
      name: np.concatenate([part[name] for part in parts])[: self.num]
      for name in parts[0]
    }

  def _placed(self):
    """(the teacher on this process's devices, how it splits a batch or None)"""
    devices = np.array(jax.local_devices())
    split = devices if CHUNK % len(devices) == 0 else devices[:1]
    mesh = jax.sharding.Mesh(split.reshape(1, -1), sharding.AXES)
    predict = sharding.replicate(self._run.teacher.predict, mesh)
    return predict, sharding.batch_sharding(mesh)

  def _write(self, workdir, chunk, predict, where):
    run, dataset = self._run, self._run.dataset
    told = dataset.batch(run.config.seed, chunk, CHUNK)
    told = {name: np.asarray(a) for name, a in told.items() if name != "x"}
    x = sample(
      predict,
      run.method.table,
      pair_key(run.config.seed),
      (CHUNK, *run.card.shape),
      cond=conditions.from_batch(run.card.conditions, told),
      first=chunk * CHUNK,
      sharding=where,
    )
    path = _path(workdir, chunk)
    try:
      if not paths.is_remote(workdir):
        os.makedirs(os.path.dirname(path), exist_ok=True)
      paths.write(path, conditions_file.pack({"x": np.asarray(x), **told}))
    except OSError as error:
      reason = paths.reason(error)
      raise Failure(f"{path} cannot be written: {reason}") from error


def _path(workdir, chunk):
  return paths.join(workdir, FOLDER, f"{chunk:05d}.npz")


def _read(path):
  """{name: array} of a file of pairs; None where there is none, or a half."""
  try:
    return conditions_file.unpack(paths.read(path))
  except FileNotFoundError:
    return None
  except OSError as error:
    reason = paths.reason(error)
    raise Failure(f"{path} cannot be read: {reason}") from error
  except ValueError as error:
    log.warning("%s %s; it is made anew", path, error)
    return None
