"""The checkpoints of a run: which there are, which stay, which is good.

Saves are asynchronous and atomic (a killed save leaves a directory that the
next run removes). Every checkpoint carries the checksums of its files, so that
damage is found when it is read, and the one before it is used instead. A disk
that is full costs a warning: the next save is the next try.
"""

import contextlib
import json
import logging
import math
import os
import time

from etils import epath
import jax
import numpy as np

from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.store import paths, processes, seals
from diffflow_jax.store.aside import set_aside
from diffflow_jax.store.digest import digest, name_of
from diffflow_jax.store.orbax_errors import root_cause

log = logging.getLogger("diffflow_jax")

DIGEST = "digest"  # the item of checksums of arrays in checkpoints until 2026
REMOVED = ".removed"  # a checkpoint on its way out
TRIES = 1000  # how many that are removed meanwhile a reader runs after


class Checkpoints:
  """The checkpoints of a run, in directory/<step>. A context manager.

  Args:
    directory: on a disk or in a bucket; created if missing, unless read_only.
      All processes share it.
    latest: how many of the newest to keep, None for all.
    every: those of steps that are multiples of it stay too; 0 for none.
    best: how many of the lowest `loss` stay too.
    read_only: for sampling; moves and removes nothing.
    witness: a file of the workdir; while it is not there, nothing is saved.
  Raises:
    Refusal: the directory is a file, or cannot be created.
  """

  def __init__(
    self, directory, *, latest=3, every=0, best=0, read_only=False, witness=None
  ):
    from diffflow_jax.store import storage  # Orbax is slow to import

    self._storage = storage
    if paths.is_remote(directory):
      paths.use(str(directory))
      self._directory = epath.Path(directory)
    else:
      self._directory = epath.Path(os.path.abspath(directory))
    self._keep = (latest, every, best)
    self._read_only = read_only
    self._witness = None if witness is None else epath.Path(witness)
    self._reason = None  # why the last save failed
    self._started = None  # (step, loss) of a save that may be under way
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
    self._remove_unfinished()
    self._losses = {step: self._loss_of(step) for step in self._list()}
    self._saver = storage.Saver()

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    if not self._read_only:
      self.wait()  # an exit without it would lose the last save
      self._saver.close()

  def steps(self):
    """Steps of the finished checkpoints, newest first."""
    known = self._list() if self._read_only else self._losses
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
    self.wait()
    step, loss = int(step), None if loss is None else float(loss)
    if loss is not None and math.isnan(loss):
      loss = None
    self._started = step, loss
    try:
      if self._witness is not None and not self._witness.exists():
        raise OSError(f"{self._witness.parent} has vanished, or part of it")
      wrapped = {name: {name: tree} for name, tree in items.items()}
      path = self._directory / str(step)
      self._saver.start(path, wrapped, step=step, loss=loss)
    except Exception as error:  # whatever a file system makes Orbax raise
      self._note_failure(error)

  def wait(self):
    """Waits for the save under way; whether it, if any, went well."""
    if self._started is None:
      return True
    try:
      self._saver.wait()
    except Exception as error:  # as above
      self._note_failure(error)
      return False
    step, self._losses[step] = self._started
    self._started = None
    self._prune()
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
      raise SaveFailed(
        f"step {step} cannot be saved: {self._reason}; {self.newest()}"
      )
    if jax.process_count() == 1:  # threads of a failed save may come late
      self._remove_unfinished()

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
    for _ in range(TRIES):
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
    path = self._directory / str(step)
    self.check(step, like)
    items = _together(
      lambda: {
        name: self._storage.load(path / name, {name: tree})[name]
        for name, tree in like.items()
      }
    )
    if not (path / seals.CHECKSUMS).exists():
      self._check_digests(step, path, items)
    return items

  def check(self, step, like):
    """Raises, as `load` does, unless its files are as they were saved."""
    path = self._directory / str(step)
    _together(lambda: self._check(step, path, like))

  def _check(self, step, path, like):
    """Raises unless the files of what is wanted are as they were saved."""
    if (path / DIGEST).exists() and not (path / seals.CHECKSUMS).exists():
      known = self._storage.shapes(path / DIGEST)  # saved by an older version
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
      stored = self._storage.shapes(path / name)
      _check_same_arrays(step, stored, {name: tree})

  def _check_digests(self, step, path, items):
    """What older versions saved: a digest of the arrays of every item."""
    zero = np.zeros((), np.uint32)
    known = dict.fromkeys(self._storage.shapes(path / DIGEST), zero)
    known = self._storage.load(path / DIGEST, known)
    for name, tree in items.items():
      if int(known[name]) != int(digest(tree)):
        raise ValueError(f"the arrays of {name} do not match their digest")
    if int(items.get("step", step)) != step:
      raise ValueError(f"it is checkpoint {items['step']} under another name")

  def _list(self):
    """Steps of what lies there finished."""
    for _ in range(TRIES):
      listed = [
        self._directory / name
        for name in paths.names(self._directory)
        if name.isdecimal()
      ]
      finished = [p for p in listed if self._storage.is_finished(p)]
      # what was listed may be removed since, and a newer one be there
      if finished or all(path.exists() for path in listed):
        break
    return [int(path.name) for path in finished]

  def _loss_of(self, step):
    """The loss a checkpoint was saved with, or None; only `best` needs it."""
    if not self._keep[-1]:
      return None
    path = self._directory / str(step)
    try:
      if (path / seals.CHECKSUMS).exists():
        return seals.read(path)["loss"]
      return float(json.loads((path / "metrics/metrics").read_text())["loss"])
    except FileNotFoundError:  # an older version, which saved without a loss
      return None
    except (OSError, ValueError, KeyError, TypeError) as error:
      log.warning("the loss of checkpoint %d cannot be read: %s", step, error)
      return None

  def _prune(self):
    """Removes the checkpoints that nothing says to keep."""
    keep = kept(self._losses, *self._keep)
    for step in self._losses.keys() - keep:
      del self._losses[step]
      if jax.process_index() == 0:
        self._remove(self._directory / str(step))

  def _remove(self, path):
    with _warned(f"{path} cannot be removed"):
      if not paths.is_remote(path):  # who reads it finds all of it, or nothing
        path = path.rename(path.parent / f"{path.name}{REMOVED}")
      path.rmtree()

  def _remove_unfinished(self):
    """Removes what failed or killed saves left; none may be under way."""
    if jax.process_index() != 0:
      return
    for path in map(self._directory.joinpath, paths.names(self._directory)):
      leftover = path.name.endswith((self._storage.UNFINISHED, REMOVED))
      with _warned(f"{path} cannot be removed"):
        if path.is_dir():
          ours = leftover or path.name.isdecimal()
          if ours and not self._storage.is_finished(path):
            path.rmtree()
        elif leftover or path.name.isdecimal():
          log.warning("%s is no checkpoint and is moved away", path)
          set_aside(path, self._directory.parent)

  def _note_failure(self, error):
    """Says what went wrong, and makes room for the next try."""
    (step, _), self._started = self._started, None
    self._reason = root_cause(error)
    if jax.process_count() > 1:
      raise SaveFailed(f"step {step} cannot be saved: {self._reason}")
    log.warning(
      "checkpoint %d could not be saved, training goes on: %s",
      step,
      self._reason,
    )
    with contextlib.suppress(OSError):
      self._remove_unfinished()

  def _set_aside(self, steps):
    """Moves damaged checkpoints away, so that their steps can be saved again.

    Only when another one was read: a file system that fails for a moment makes
    all of them look damaged.
    """
    for step in steps:
      del self._losses[step]
      if jax.process_index() == 0:
        set_aside(self._directory / str(step), self._directory.parent)


def kept(losses, latest, every, best):
  """The steps of {step: loss or None} that stay."""
  steps = sorted(losses)
  if latest is None:
    return set(steps)
  of_loss = [s for s in steps if losses[s] is not None]
  lowest = sorted(of_loss, key=lambda step: (losses[step], -step))[:best]
  nth = [step for step in steps if every and step % every == 0]
  return {*steps[len(steps) - min(latest, len(steps)) :], *nth, *lowest}


class SaveFailed(Failure):
  """A checkpoint that could not be written."""


class Damaged(Failure):
  """No checkpoint can be read."""


class OtherArrays(ValueError):
  """A sound checkpoint, but not of this network and optimiser."""


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


@contextlib.contextmanager
def _warned(what):
  """Turns a file system's errors into warnings."""
  try:
    with paths.told(what, writes=True):
      yield
  except OSError as error:
    log.warning("%s: %s", what, paths.reason(error))


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
