"""Being asked to stop: SIGTERM, Ctrl-C, and preemption of one host of many."""

import os
import signal
import threading

import jax


class StopRequest:
  """Notes a request to stop, so that the loop can save before it ends.

  A context manager; outside the main thread, where Python gives no signals, it
  notes nothing. With several processes SIGTERM belongs to JAX's preemption
  service: one process that gets it stops all of them at the same step. Ctrl-C
  is passed on as SIGTERM there.
  """

  def __init__(self):
    self.signal = None
    self._before = {}
    self._alone = jax.process_count() == 1

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      numbers = (signal.SIGTERM, signal.SIGINT)
      for number in numbers if self._alone else (signal.SIGINT,):
        self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exc):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def at(self, step):
    """The signal's name if the loop should stop before this step, or None.

    With several processes, each asks once for every step, with the same steps.
    """
    if not self._alone:
      from jax.experimental import multihost_utils

      if multihost_utils.reached_preemption_sync_point(step):
        self.signal = "SIGTERM"
    return self.signal

  def _note(self, number, frame):
    if not self._alone:
      os.kill(os.getpid(), signal.SIGTERM)
      return
    if self.signal is not None:
      raise KeyboardInterrupt  # asked twice: at once
    self.signal = signal.Signals(number).name
