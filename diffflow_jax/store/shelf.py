"""A directory of checkpoints: which lie there finished, and what is cleared.

A checkpoint is a directory named by its step. A killed save leaves one that has
not got its name yet, a killed removal one that has lost it.
"""

import contextlib
import logging

from diffflow_jax.store import paths
from diffflow_jax.store.aside import set_aside

log = logging.getLogger("diffflow_jax")

REMOVED = ".removed"  # a checkpoint on its way out
TRIES = 1000  # how many that are removed meanwhile a reader runs after


def finished(directory):
  """The steps of the checkpoints that lie there finished."""
  from diffflow_jax.store import storage  # Orbax is slow to import

  for _ in range(TRIES):
    listed = [
      directory / name for name in paths.names(directory) if name.isdecimal()
    ]
    whole = [path for path in listed if storage.is_finished(path)]
    # what was listed may be removed since, and a newer one be there
    if whole or all(path.exists() for path in listed):
      break
  return [int(path.name) for path in whole]


def remove(path):
  """Removes a checkpoint; a warning if the file system does not let us."""
  with _warned(f"{path} cannot be removed"):
    if not paths.is_remote(path):  # who reads it finds all of it, or nothing
      path = path.rename(path.parent / f"{path.name}{REMOVED}")
    path.rmtree()


def remove_unfinished(directory):
  """Removes what failed or killed saves left; none may be under way."""
  from diffflow_jax.store import storage

  for path in map(directory.joinpath, paths.names(directory)):
    leftover = path.name.endswith((storage.UNFINISHED, REMOVED))
    with _warned(f"{path} cannot be removed"):
      if path.is_dir():
        ours = leftover or path.name.isdecimal()
        if ours and not storage.is_finished(path):
          path.rmtree()
      elif leftover or path.name.isdecimal():
        log.warning("%s is no checkpoint and is moved away", path)
        set_aside(path, directory.parent)


@contextlib.contextmanager
def _warned(what):
  """Turns a file system's errors into warnings."""
  try:
    with paths.told(what, writes=True):
      yield
  except OSError as error:
    log.warning("%s: %s", what, paths.reason(error))
