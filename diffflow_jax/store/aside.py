"""Where files of a run go that cannot be read: out of its way, never away."""

import logging
import os
import time

from etils import epath

from diffflow_jax.cli import Failure
from diffflow_jax.store import paths

log = logging.getLogger("diffflow_jax")

KEPT_ASIDE = "damaged"


def set_aside(path, workdir, *, copy=False):
  """Moves a file or directory to workdir/damaged/<name>_<time>.

  Args:
    copy: of a file, which stays where it is.
  Raises:
    Failure: there is a file of that name; OSError: it cannot be moved.
  """
  path, aside = epath.Path(path), epath.Path(workdir) / KEPT_ASIDE
  if aside.exists() and not aside.is_dir():
    raise Failure(
      f"{aside} must be a directory, for damaged files as {path}: move it away"
    )
  aside.mkdir(parents=True, exist_ok=True)
  target = aside / f"{path.name}_{time.time_ns()}"
  path.copy(target) if copy else paths.move(path, target)


def make_way(path, workdir, *, directory):
  """Sets aside what is a file where a directory belongs, or the other way."""
  is_other = os.path.isfile if directory else os.path.isdir
  if is_other(path):
    kind = "file" if directory else "directory"
    log.warning("%s is a %s, and is set aside in %s", path, kind, KEPT_ASIDE)
    set_aside(path, workdir)
