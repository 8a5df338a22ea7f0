"""Files that grow, for a workdir in a bucket, where no file can.

They are written on this machine; a thread copies what has changed.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import threading
import time

from diffflow_jax.cli import Failure
from diffflow_jax.store import paths

log = logging.getLogger("diffflow_jax")

AGAIN = 5.0  # seconds until a copy that failed is tried again
SHARE = 0.1  # of the time that copying may take, as files get long
LAST = 60.0  # seconds that the end of a run waits for the bucket


class Mirror:
  """A folder for the files of a run that grow. A context manager.

  Args:
    workdir: of the run; appended: name of a file there that is gone on with.
  Attributes:
    folder: where to write; the workdir itself if it is on a disk.
  Raises:
    Failure: the bucket does not give that file.
  """

  def __init__(self, workdir, appended):
    self._workdir = workdir
    self._remote = paths.is_remote(workdir)
    self.folder = workdir
    if self._remote:
      self.folder = tempfile.mkdtemp(prefix="diffflow_jax_")
      self._fetch(appended)
    self._copied = {}  # path: the stamp of what the bucket has
    self._news = threading.Condition()
    self._awaited = self._ended = self._failing = False

  def __enter__(self):
    if self._remote:
      self._thread = threading.Thread(
        target=self._run, name="mirror", daemon=True
      )
      self._thread.start()
    return self

  def __exit__(self, *exc):
    if not self._remote:
      return
    done = self.wait(seconds=LAST)
    with self._news:
      self._ended = True
      self._news.notify_all()
    if not done:
      log.warning(
        "%s does not answer: files that it lacks stay in %s",
        self._workdir,
        self.folder,
      )
      return
    self._thread.join()
    shutil.rmtree(self.folder, ignore_errors=True)

  def _fetch(self, name):
    path = paths.join(self._workdir, name)
    try:
      paths.write(os.path.join(self.folder, name), paths.read(path))
    except FileNotFoundError:  # a new run
      pass
    except OSError as error:
      raise Failure(f"{path} cannot be read: {paths.reason(error)}") from error

  def wait(self, name="", seconds=10.0):
    """Waits for the bucket to have a file, or all of them; whether it has.

    The others are copied as well, from now on.
    """
    until = time.monotonic() + (seconds if self._remote else 0.0)
    with self._news:
      while True:
        self._awaited = True
        self._news.notify_all()
        changed, left = self._changed(name), until - time.monotonic()
        if not changed or left <= 0.0 or (name and self._failing):
          return not changed
        self._news.wait(min(left, 1.0))

  def _changed(self, name=""):
    """[(path, stamp)] of what the bucket has not, in the order of names."""
    if not self._remote:
      return []
    found = []
    for path in paths.files_below(os.path.join(self.folder, "")):
      below = os.path.relpath(path, self.folder)
      if path.endswith(".partial") or not below.startswith(name):
        continue
      with contextlib.suppress(FileNotFoundError):
        stat = os.stat(path)
        stamp = (stat.st_size, stat.st_mtime_ns)
        if self._copied.get(path) != stamp:
          found.append((path, stamp))
    return found

  def _run(self):
    while not self._ended:
      start = time.monotonic()
      failed = False
      for path, stamp in self._changed():
        failed = failed or not self._copy(path, stamp)
      self._failing = failed
      took = time.monotonic() - start
      with self._news:
        self._news.notify_all()
        rest = AGAIN if failed else max(1.0, took / SHARE)
        self._news.wait_for(
          lambda: self._ended or (self._awaited and not self._failing), rest
        )
        self._awaited = False

  def _copy(self, path, stamp):
    """Copies a file; whether it went well."""
    below = os.path.relpath(path, self.folder).replace(os.sep, "/")
    try:
      paths.write(paths.join(self._workdir, below), paths.read(path))
    except OSError as error:
      if not self._failing:
        log.warning(
          "%s cannot be copied to %s yet, training goes on: %s",
          below,
          self._workdir,
          paths.reason(error),
        )
        self._failing = True
      return False
    self._copied[path] = stamp
    return True
