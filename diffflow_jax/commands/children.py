"""Processes of the commands, one after the other. Imports no JAX."""

import signal
import subprocess
import sys


class Children:
  """Runs commands; what asks this process to stop asks the one that runs.

  A context manager. A child saves before it ends, which is waited for.

  Attributes:
    stopped: None, or the name of the signal that asked to stop.
  """

  def __init__(self):
    self.stopped = None
    self._child = None
    self._before = {}

  def __enter__(self):
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
      number = getattr(signal, name, None)  # Windows has no SIGHUP
      if number is None or signal.getsignal(number) is signal.SIG_IGN:
        continue
      self._before[number] = signal.signal(number, self._pass_on)
    return self

  def __exit__(self, *exc):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def run(self, name, *flags):
    """The exit status of `python -m diffflow_jax.<name> flags…`."""
    if self.stopped:
      return None
    self._child = subprocess.Popen(
      [sys.executable, "-m", f"diffflow_jax.{name}", *flags]
    )
    if self.stopped:  # it came in between
      self._child.send_signal(signal.Signals[self.stopped])
    status = self._child.wait()
    self._child = None
    return status

  def _pass_on(self, number, frame):
    self.stopped = signal.Signals(number).name
    if self._child is not None:
      self._child.send_signal(number)
