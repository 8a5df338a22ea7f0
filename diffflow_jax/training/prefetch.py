"""Batches made ahead of the step that needs them, by one thread."""

import logging
import queue
import threading
import time

from diffflow_jax.cli import Failure

log = logging.getLogger("diffflow_jax")

STALL_SECONDS = 30.0
POLL_SECONDS = 1.0


class Prefetch:
  """Iterates over make(step) for steps start, start + stride, …

  `make` runs in a thread of its own, at most `ahead` batches before they are
  asked for: reading and copying to the device overlap with the step. A context
  manager; errors of `make` are raised where the batch is asked for, those of
  the data as a Failure that names the step.

  Attributes:
    waited: seconds spent waiting for batches so far.
  """

  def __init__(self, make, start, stop, stride=1, ahead=2):
    self.waited = 0.0
    self._steps = range(start, stop, stride)
    self._make = make
    self._ready = queue.Queue(maxsize=ahead)
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)

  def _run(self):
    for step in self._steps:
      try:
        item = (step, self._make(step), None)
      except Exception as error:  # handed over to the loop
        item = (step, None, error)
      while not self._closed.is_set():
        try:
          self._ready.put(item, timeout=0.1)
          break
        except queue.Full:
          continue
      if self._closed.is_set() or item[2] is not None:
        return

  def get(self, step, stopped=lambda: False):
    """The batch of a step; steps must be asked for in order.

    Args:
      stopped: asked every second of waiting; if true, None is returned.
    """
    start, told = time.monotonic(), 0.0
    while True:
      try:
        ready, batch, error = self._ready.get(timeout=POLL_SECONDS)
        break
      except queue.Empty:
        if stopped():
          return None
        waited = time.monotonic() - start
        if waited >= told + STALL_SECONDS:
          told = waited
          log.warning(
            "no input for step %d after %.0f s: the dataset is stalled or slow",
            step,
            waited,
          )
    self.waited += time.monotonic() - start
    if isinstance(error, (OSError, ValueError)):
      raise Failure(f"the batch of step {step} cannot be read: {error}")
    if error is not None:
      raise error
    if ready != step:
      raise RuntimeError(f"asked for batch {step}, but {ready} is next")
    return batch

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *exc):
    self._closed.set()
    self._thread.join(timeout=5.0)  # one that is stalled ends with the process
