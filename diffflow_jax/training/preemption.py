"""Being asked to stop: SIGTERM, Ctrl-C, and preemption of one host of many."""

import signal
import threading

import jax


class StopRequest:
  """Notes a request to stop, so that the loop can save before it ends.

  A context manager. Outside the main thread, where Python gives no signals, it
  notes nothing. With several processes, JAX's preemption service makes all of
  them stop at the same step when one is asked to (it takes SIGTERM itself).
  """

  def __init__(self):
    self.signal = None
    self._before = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      numbers = [signal.SIGINT]
      if jax.process_count() == 1:
        numbers.append(signal.SIGTERM)
      for number in numbers:
        self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exc):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number, frame):
    if self.signal is not None:
      raise KeyboardInterrupt  # asked twice: at once
    self.signal = signal.Signals(number).name

  def at(self, step):
    """The name of the signal if the loop should stop at this step, or None."""
    if jax.process_count() > 1:
      from jax.experimental import multihost_utils

      if multihost_utils.reached_preemption_sync_point(step):
        self.signal = "SIGTERM"
    return self.signal
