"""The checkpoints of a run: which there are, which stay, which is good.

Saves are asynchronous and atomic (a killed save leaves a directory that the
next run removes). Damage is found when a checkpoint is read, and the one before
it is used instead.
"""

import logging
import math
import os
import time

from etils import epath
import jax

from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.store import keeping, paths, shelf, soundness
from diffflow_jax.store.aside import set_aside
from diffflow_jax.store.saving import SaveFailed, Saves
from diffflow_jax.store.soundness import OtherArrays

__all__ = ["Checkpoints", "Damaged", "OtherArrays", "SaveFailed"]

log = logging.getLogger("diffflow_jax")


class Damaged(Failure):
  """No checkpoint can be read."""


class Checkpoints:
  """The checkpoints of a run, in directory/<step>. A context manager.

  Args:
    directory: on a disk or in a bucket; created if missing, unless read_only.
      All processes share it.
    latest: how many of the newest to keep, None for all.
    every: those of steps that are multiples of it stay too; 0 for none.
    best: how many of the lowest `loss` stay too; by: None, or what this loss is
      of: that of a checkpoint saved with another one counts for nothing.
    read_only: for sampling; moves and removes nothing.
    witness: a file of the workdir; while it is not there, nothing is saved.
  Raises:
    Refusal: the directory is a file, or cannot be created.
  """

  def __init__(
    self,
    directory,
    *,
    latest=3,
    every=0,
    best=0,
    by=None,
    read_only=False,
    witness=None,
  ):
    if paths.is_remote(directory):
      paths.use(str(directory))
      self._directory = epath.Path(directory)
    else:
      self._directory = epath.Path(os.path.abspath(directory))
    self._keep, self._by = (latest, every, best), by
    self._read_only = read_only
    if self._directory.exists() and not self._directory.is_dir():
      raise Refusal(f"{self._directory} must be a directory: move it away")
    if read_only:
      return
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise Refusal(
        f"{self._directory} cannot be made: {error.strerror or error}"
      ) from error
    witness = None if witness is None else epath.Path(witness)
    self._saves = Saves(self._directory, witness, self._note)
    self._saves.clear()
    steps = shelf.finished(self._directory)
    self._losses = {step: self._loss_of(step) for step in steps}

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    if not self._read_only:
      self._saves.close()

  def steps(self):
    """Steps of the finished checkpoints, newest first."""
    known = shelf.finished(self._directory) if self._read_only else self._losses
    return sorted(known, reverse=True)

  def save(self, step, items, loss=None):
    """Starts saving {name: pytree}; they may be donated once this returns.

    Args:
      loss: what `best` goes by; a step without one is never the best.

    If it fails, or has failed in the background, a warning says so and nothing
    else happens: the checkpoints that are there stay, training goes on.

    Raises:
      SaveFailed: it fails, and there are several processes, which could then
        disagree about what is saved.
    """
    if loss is not None:
      loss = None if math.isnan(loss) else float(loss)
    self._saves.start(int(step), items, loss, by=self._by)

  def wait(self):
    """Waits for the save under way; whether it, if any, went well."""
    return self._saves.wait()

  def finish(self, step, items, loss=None, tries=3, seconds=10.0):
    """Saves and waits, unless this step is there; tries again if it fails.

    Raises:
      SaveFailed: every try failed.
    """
    for attempt in range(tries):
      if self.wait() and step in self.steps():
        break
      if attempt:
        time.sleep(seconds)
      self.save(step, items, loss)
    if not (self.wait() and step in self.steps()):
      raise SaveFailed(
        f"step {step} cannot be saved: {self._saves.reason}; {self.newest()}"
      )
    if jax.process_count() == 1:  # threads of a failed save may come late
      self._saves.clear()

  def newest(self):
    """What there is to go on from, for the end of a sentence."""
    steps = self.steps()
    return f"checkpoint {steps[0]} is good" if steps else "no checkpoint yet"

  def restore(self, like, only=None):
    """The newest checkpoint that is whole, as (step, items), or None.

    Args:
      only: the step to look at, alone.
      like: {name: pytree} of arrays or ShapeDtypeStructs to restore into, any
        part of what was saved; without a sharding, onto one device.
    Raises:
      OtherArrays: it holds other arrays, those of another network say.
      Damaged: none of those that are there can be read.
    """
    failed = []
    for _ in range(shelf.TRIES):
      # listed anew each time: a run that trains here removes old ones
      steps = self.steps() if only is None else [only]
      steps = [step for step in steps if step not in failed]
      if not steps:
        break
      try:
        items = self.load(steps[0], like)
      except OtherArrays:
        raise
      except ValueError as error:
        failed.append(steps[0])
        if self._read_only and steps[0] not in self.steps():
          continue
        log.warning(
          "checkpoint %d in %s is damaged and is skipped: %s",
          steps[0],
          self._directory,
          error,
        )
        continue
      if not self._read_only:
        self._set_aside(failed)
      return steps[0], items
    if self._read_only or not failed:
      return None
    raise Damaged(
      f"no checkpoint in {self._directory} can be read, and none was moved: "
      "mend the file system, or take another --workdir"
    )

  def load(self, step, like):
    """The items of one checkpoint; `like` as in `restore`.

    Raises:
      OtherArrays: it holds other arrays; ValueError: it is damaged.
    """
    return soundness.load(self._directory / str(step), step, like)

  def check(self, step, like):
    """Raises, as `load` does, unless its files are as they were saved."""
    soundness.check(self._directory / str(step), step, like)

  def _loss_of(self, step):
    """What `best` goes by; nothing else needs it."""
    if not self._keep[-1]:
      return None
    return keeping.loss_of(self._directory / str(step), self._by)

  def _note(self, step, loss):
    """One more is there; removes those that nothing says to keep now."""
    self._losses[step] = loss
    keep = keeping.kept(self._losses, *self._keep)
    for step in self._losses.keys() - keep:
      del self._losses[step]
      if jax.process_index() == 0:
        shelf.remove(self._directory / str(step))

  def _set_aside(self, steps):
    """Moves damaged checkpoints away, so that their steps can be saved again.

    Only when another one was read: a file system that fails for a moment makes
    all of them look damaged.
    """
    for step in steps:
      del self._losses[step]
      if jax.process_index() == 0:
        set_aside(self._directory / str(step), self._directory.parent)
