"""Being asked to stop: SIGTERM, SIGHUP, Ctrl-C, preemption of one host of many.

Launchers signal a process group and its leader too, so that the same request
comes twice. However often it comes, it is one request; only a person who
presses Ctrl-C again, a second later, wants to wait no longer.
"""

import os
import signal
import threading
import time

import jax

ONE_REQUEST = (
  1.0  # seconds in which two Ctrl-C are one, passed on by a launcher
)


class StopRequest:
  """Notes a request to stop, so that the loop can save before it ends.

  A context manager; outside the main thread, where Python gives no signals, it
  notes nothing. A signal that is ignored already, as SIGHUP under nohup, stays
  so. With several processes SIGTERM belongs to JAX's preemption service: one
  process that gets it stops all of them at the same step. The other signals are
  passed on as SIGTERM there.
  """

  def __init__(self):
    self.signal = None
    self._before = {}
    self._pressed = None  # when Ctrl-C was pressed first
    self._alone = jax.process_count() == 1

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      names = ("SIGINT", "SIGHUP", *(("SIGTERM",) if self._alone else ()))
      for name in names:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        ignored = number is None or signal.getsignal(number) is signal.SIG_IGN
        if not ignored:
          self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exc):
    for number, handler in self._before.items():
      # what asked to stop may ask again until the process has ended
      again = self.signal is not None and number != signal.SIGINT
      signal.signal(number, signal.SIG_IGN if again else handler)

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
    if number == signal.SIGINT:
      self._press()
    if not self._alone:
      os.kill(os.getpid(), signal.SIGTERM)
    elif self.signal is None:
      self.signal = signal.Signals(number).name

  def _press(self):
    now = time.monotonic()
    if self._pressed is None:
      self._pressed = now
      _say("SIGINT: saving; Ctrl-C again ends at once, without this save")
    elif now - self._pressed > ONE_REQUEST:
      _say(
        "SIGINT again: ends at once; the save that was under way is given up, "
        "the checkpoint before it stays"
      )
      raise KeyboardInterrupt


def _say(text):
  """A line on stderr, from a signal's handler: print may be in the middle."""
  os.write(2, f"\n{text}\n".encode())
