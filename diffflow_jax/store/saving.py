"""Saves of a run in the background, one at a time, and what becomes of them.

A disk that is full costs a warning: the next save is the next try.
"""

import contextlib
import logging

import jax

from diffflow_jax.cli import Failure
from diffflow_jax.store import shelf
from diffflow_jax.store.orbax_errors import root_cause

log = logging.getLogger("diffflow_jax")


class SaveFailed(Failure):
  """A checkpoint that could not be written."""


class Saves:
  """Saves into directory/<step>.

  Args:
    directory: an epath.Path that is there.
    witness: None, or a file; while it is not there, nothing is saved.
    saved: (step, loss) -> None, called when a save has gone well.
  Attributes:
    reason: why the last one failed, or None.
  """

  def __init__(self, directory, witness, saved):
    from diffflow_jax.store.storage import Saver  # Orbax is slow to import

    self._directory, self._witness, self._saved = directory, witness, saved
    self._saver = Saver()
    self._started = None  # (step, loss) of a save that may be under way
    self.reason = None

  def start(self, step, items, loss, **said):
    """Begins to save {name: pytree}; `Checkpoints.save` says the rest."""
    self.wait()
    self._started = step, loss
    try:
      if self._witness is not None and not self._witness.exists():
        raise OSError(f"{self._witness.parent} has vanished, or part of it")
      wrapped = {name: {name: tree} for name, tree in items.items()}
      path = self._directory / str(step)
      self._saver.start(path, wrapped, step=step, loss=loss, **said)
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
    done, self._started = self._started, None
    self._saved(*done)
    return True

  def clear(self):
    """Removes what failed or killed saves left; none may be under way."""
    if jax.process_index() == 0:
      shelf.remove_unfinished(self._directory)

  def close(self):
    """Waits, as an exit without it would lose the last save, and ends."""
    self.wait()
    self._saver.close()

  def _note_failure(self, error):
    """Says what went wrong, and makes room for the next try."""
    (step, _), self._started = self._started, None
    self.reason = root_cause(error)
    if jax.process_count() > 1:
      raise SaveFailed(f"step {step} cannot be saved: {self.reason}")
    log.warning(
      "checkpoint %d could not be saved, training goes on: %s",
      step,
      self.reason,
    )
    with contextlib.suppress(OSError):
      self.clear()
