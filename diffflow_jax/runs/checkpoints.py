"""Checkpoints, by Orbax: the only module that knows it.

Saves are asynchronous and atomic (a killed save leaves a temporary directory,
which the next run removes). Every checkpoint carries a digest of its arrays, so
that damage is found when it is read, and the one before it is used instead. A
disk that is full costs a warning: the next save is the next try.
"""

import contextlib
import logging
import os
import shutil
import time

import jax
import numpy as np

from diffflow_jax.cli import Failure
from diffflow_jax.runs.digest import digest, name_of
from diffflow_jax.runs.orbax_errors import hush, quietly, root_cause

log = logging.getLogger("diffflow_jax")

DIGEST = "digest"  # the item that holds the checksums of the others
KEPT_ASIDE = "damaged"  # where checkpoints that cannot be read are moved
UNFINISHED = ".orbax-checkpoint-tmp"  # what Orbax calls a save under way


class Checkpoints:
  """The checkpoints of a run, in directory/<step>. A context manager.

  Args:
    directory: created if missing, unless read_only. All processes share it.
    latest: how many of the newest to keep, None for all.
    every: those of steps that are multiples of it stay too; 0 for none.
    best: how many of the lowest `loss` stay too.
    read_only: for sampling; moves and removes nothing.
  """

  def __init__(self, directory, *, latest=3, every=0, best=0, read_only=False):
    from orbax.checkpoint import v1 as ocp  # slow to import

    hush()
    self._directory = os.path.abspath(directory)
    self._read_only = read_only
    keep = None
    if not read_only and latest is not None:
      keep = _policy(ocp.training.preservation_policies, latest, every, best)
    self._inner = ocp.training.Checkpointer(
      self._directory,
      save_decision_policy=(
        ocp.training.save_decision_policies.FixedIntervalPolicy(1)
      ),
      preservation_policy=keep,
      cleanup_tmp_directories=not read_only,
    )
    self._started = None  # the step whose save may still be under way

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    self.wait()  # an exit without it would lose the last save
    self._inner.close()

  def steps(self):
    """Steps of the finished checkpoints, newest first."""
    return sorted((c.step for c in self._inner.checkpoints), reverse=True)

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
    self.wait()
    crc = {name: np.asarray(digest(tree)) for name, tree in items.items()}
    stored = {**{k: {k: v} for k, v in items.items()}, DIGEST: crc}
    self._started = int(step)
    try:
      self._inner.save_checkpointables_async(
        self._started, stored, metrics=None if loss is None else {"loss": loss}
      )
    except (OSError, ValueError) as error:
      self._note_failure(error)

  def wait(self):
    """Waits for the save under way; whether it, if any, went well."""
    if self._started is None:
      return True
    try:
      self._inner.wait()
    except (OSError, ValueError) as error:
      self._note_failure(error)
      return False
    self._started = None
    return True

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
      raise SaveFailed(f"step {step} cannot be saved; {self.newest()}")
    if jax.process_count() == 1:  # threads of a failed save may come late
      self._remove_unfinished()

  def newest(self):
    """What there is to go on from, for the end of a sentence."""
    steps = self.steps()
    return f"checkpoint {steps[0]} is good" if steps else "no checkpoint yet"

  def _remove_unfinished(self):
    """Removes what failed saves left; none may be under way."""
    for name in os.listdir(self._directory):
      if name.endswith(UNFINISHED):
        shutil.rmtree(os.path.join(self._directory, name), ignore_errors=True)

  def _note_failure(self, error):
    """Says what went wrong, and makes room for the next try."""
    step, self._started = self._started, None
    reason = root_cause(error)
    if jax.process_count() > 1:
      raise SaveFailed(f"step {step} cannot be saved: {reason}")
    log.warning(
      "checkpoint %d could not be saved, training goes on: %s", step, reason
    )
    self._remove_unfinished()

  def restore(self, like, only=None):
    """The newest checkpoint that is whole, as (step, items), or None.

    Args:
      only: the step to look at, alone.
      like: {name: pytree} of arrays or ShapeDtypeStructs to restore into, any
        part of what was saved; without a sharding, onto one device.
    Raises:
      OtherArrays: it holds other arrays, those of another network say.
      Damaged: none of those that are there can be read; or the newest cannot,
        and there are several processes, which have to start again together.
    """
    damaged = []
    for step in self.steps() if only is None else [only]:
      try:
        items = self.load(step, like)
      except OtherArrays:
        raise
      except ValueError as error:
        log.warning(
          "checkpoint %d in %s is damaged and is skipped: %s",
          step,
          self._directory,
          error,
        )
        damaged.append(step)
        if jax.process_count() > 1 and not self._read_only:
          break  # the others may have read their part: all start again
        continue
      self._set_aside(damaged)
      return step, items
    if not damaged or self._read_only:
      return None
    if jax.process_count() > 1 and len(self.steps()) > 1:
      self._set_aside(damaged)
      raise Damaged(f"checkpoint {damaged[0]} is set aside: start again")
    raise Damaged(
      f"no checkpoint in {self._directory} can be read, and none was moved: "
      "mend the file system, or take another --workdir"
    )

  def load(self, step, like):
    """The items of one checkpoint; `like` as in `restore`.

    Raises:
      OtherArrays: it holds other arrays; ValueError: it is damaged.
    """
    stored = quietly(
      lambda: self._inner.checkpointables_metadata(step).metadata
    )
    _check_complete(stored)
    _check_same_arrays(step, stored, like)
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=getattr(x, "sharding", None) or default
      ),
      {name: {name: tree} for name, tree in like.items()},
    )
    abstract[DIGEST] = {
      name: np.zeros((), np.uint32) for name in stored[DIGEST]
    }
    loaded = quietly(lambda: self._inner.load_checkpointables(step, abstract))
    items = {name: loaded[name][name] for name in like}
    for name, tree in items.items():
      if int(loaded[DIGEST][name]) != int(digest(tree)):
        raise ValueError(f"the arrays of {name} do not match their digest")
    return items

  def _set_aside(self, steps):
    """Moves damaged checkpoints away, so that their steps can be saved again.

    Only when another one was read: a file system that fails for a moment makes
    all of them look damaged.
    """
    if self._read_only or not steps:
      return
    aside = os.path.join(os.path.dirname(self._directory), KEPT_ASIDE)
    os.makedirs(aside, exist_ok=True)
    for step in steps:
      target = os.path.join(aside, f"{step}_{time.time_ns()}")
      with contextlib.suppress(FileNotFoundError):  # another process was faster
        os.replace(os.path.join(self._directory, str(step)), target)
    self._inner.reload()


def _policy(policies, latest, every, best):
  """What Orbax shall keep; it removes the others after each save."""
  kinds = [policies.LatestN(latest)]
  if every:
    kinds.append(policies.EveryNSteps(every))
  if best:
    kinds.append(
      policies.BestN(
        get_metric_fn=lambda metrics: metrics["loss"],
        reverse=True,  # the last ones stay
        n=best,
        keep_checkpoints_without_metrics=False,
      )
    )
  return policies.AnyPreservationPolicy(kinds)


class SaveFailed(Failure):
  """A checkpoint that could not be written."""


class Damaged(Failure):
  """No checkpoint can be read, or not by all of several processes."""


class OtherArrays(ValueError):
  """A sound checkpoint, but not of this network and optimiser."""


def _check_complete(stored):
  """Damage that shows already in the list of what is there."""
  if not stored.get(DIGEST):
    raise ValueError("its digest cannot be read")
  for name in stored[DIGEST]:
    if stored.get(name) is None:
      raise ValueError(f"its {name} cannot be read")


def _check_same_arrays(step, stored, like):
  """Refuses a checkpoint whose arrays have other names or shapes."""
  for name, tree in like.items():
    if name not in stored:
      raise OtherArrays(f"checkpoint {step} holds no {name}")
    have, want = _shapes(stored[name]), _shapes({name: tree})
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
