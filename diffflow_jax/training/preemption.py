"""Being asked to stop: SIGTERM and Ctrl-C."""

import signal
import threading


class StopRequest:
  """Notes a request to stop, so that the loop can save before it ends.

  A context manager; outside the main thread, where Python gives no signals, it
  notes nothing.
  """

  def __init__(self):
    self.signal = None
    self._before = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exc):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number, frame):
    if self.signal is not None:
      raise KeyboardInterrupt  # asked twice: at once
    self.signal = signal.Signals(number).name
