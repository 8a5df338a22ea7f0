"""One job a workdir: two would remove each other's saves.

On a disk, the lock is the system's and goes with its holder. In a bucket it is
an object lock/<number>, which exactly one job can create; the highest number
holds. Its holder rewrites it again and again. One that was released, whose
process has died on this machine, or that has not changed for `LEASE` seconds by
the clock of who watches it, is followed by the next number.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid

from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.store import paths

log = logging.getLogger("diffflow_jax")

LOCK = "lock"
# how long the lock is waited for: a process that was killed may need a moment
PATIENCE = 10.0  # seconds
LEASE, BEAT = 60.0, 15.0  # seconds, of a lock in a bucket


@contextlib.contextmanager
def alone(workdir):
  """Holds the lock of a workdir while the body runs.

  Yields:
    check: () -> None, which raises a Failure once another job has taken over.
  Raises:
    Refusal: another job holds it; OSError: it cannot be written.
  """
  if paths.is_remote(workdir):
    lease = _Lease(workdir)
    lease.acquire()
    with lease.beating():
      yield lease.check
  else:
    with _system_lock(workdir):
      yield lambda: None


def _refusal(workdir):
  return Refusal(
    f"another process trains in {workdir}: wait for its end, or take another "
    "--workdir"
  )


@contextlib.contextmanager
def _system_lock(workdir):
  import fcntl  # Windows has none, and can sample

  with open(os.path.join(workdir, LOCK), "a") as file:
    until = time.monotonic() + PATIENCE
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        if time.monotonic() > until:
          raise _refusal(workdir) from error
        time.sleep(0.2)
        continue
      except OSError:  # a file system without locks
        pass
      break
    yield


class _Lease:
  """The lock of a workdir in a bucket."""

  def __init__(self, workdir):
    self._workdir = workdir
    self._number = 0
    self._lost = False
    pid = os.getpid()
    self._text = {
      "id": uuid.uuid4().hex,
      "host": socket.gethostname(),
      "machine": _machine(),
      "pid": pid,
      "started": _started(pid),
      "beats": 0,
      "over": False,
    }

  def check(self):
    """Raises a Failure once another job has taken over."""
    if self._lost:
      raise Failure(
        f"another process trains in {self._workdir} now: this one was not "
        f"heard of for more than {LEASE:.0f} seconds"
      )

  def acquire(self):
    """Waits for a holder that may be dead; refuses one that lives."""
    seen, since = None, time.monotonic()
    while True:
      number, text = self._newest()
      silent = time.monotonic() - since > LEASE and (number, text) == seen
      if silent or _is_over(text):
        if self._take(number + 1):
          return
        continue  # another was faster
      if (number, text) != seen:
        if seen and seen[0] == number:
          raise _refusal(self._workdir)  # it was heard of
        seen, since = (number, text), time.monotonic()
        log.info(
          "%s is locked from %s: waiting up to %d seconds for a sign of life",
          self._workdir,
          text["host"],
          LEASE,
        )
      time.sleep(1.0)

  @contextlib.contextmanager
  def beating(self):
    """Shows that the holder lives while the body runs, then releases."""
    ended = threading.Event()

    def beat():
      while not ended.wait(BEAT):
        with contextlib.suppress(OSError):  # the bucket may come back
          if self._newest()[0] > self._number:
            self._lost = True
            return
          self._write(beats=self._text["beats"] + 1)

    thread = threading.Thread(target=beat, name="lock", daemon=True)
    thread.start()
    try:
      yield
    finally:
      ended.set()
      thread.join()
      if not self._lost:
        with contextlib.suppress(OSError):
          self._write(over=True)

  def _take(self, number):
    """Creates a number; whether it is the highest, which holds."""
    created = paths.create(self._path(number), json.dumps(self._text))
    highest, text = self._newest()
    # a create whose answer was lost is found by what it wrote
    if highest != number or text is None or text["id"] != self._text["id"]:
      if created:
        paths.remove(self._path(number))
      return False
    self._number = number
    self._write(beats=1)  # it may be written again: some may only create
    for name in paths.names(paths.join(self._workdir, LOCK)):
      if int(name) < number:
        paths.remove(self._path(int(name)))
    return True

  def _newest(self):
    """(number, what its holder wrote), or (0, None)."""
    while True:
      found = paths.names(paths.join(self._workdir, LOCK))
      if not found:
        return 0, None
      number = int(found[-1])
      try:
        return number, json.loads(paths.read(self._path(number)))
      except FileNotFoundError:  # its successor removed it meanwhile
        continue

  def _path(self, number):
    return paths.join(self._workdir, LOCK, f"{number:08d}")

  def _write(self, **news):
    self._text |= news
    paths.write(self._path(self._number), json.dumps(self._text))


def _is_over(text):
  """Whether nobody holds a lock: released, or its process is dead for sure."""
  if text is None or text["over"]:
    return True
  here = text["machine"] is not None and text["machine"] == _machine()
  return here and _started(text["pid"]) != text["started"]


def _machine():
  """What tells this running system, and container, from all others."""
  try:
    with open("/proc/sys/kernel/random/boot_id") as file:
      return file.read().strip() + os.readlink("/proc/self/ns/pid")
  except OSError:
    return None


def _started(pid):
  """When a process of this machine started, in its own unit; None if dead."""
  try:
    with open(f"/proc/{pid}/stat") as file:
      fields = file.read().rpartition(")")[2].split()
  except OSError:
    return None
  return None if fields[0] == "Z" else fields[19]
