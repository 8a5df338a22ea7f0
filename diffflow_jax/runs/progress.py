"""One progress line: redrawn in a terminal or notebook, appended in a log."""

import sys
import time

from diffflow_jax.store import compilation


def _redraws(stream):
  """Whether a carriage return goes back to the start of the line."""
  return stream.isatty() or "ipykernel" in sys.modules


def duration(seconds):
  """1:02:03, or 2:03 below an hour."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02d}:{seconds:02d}"
  return f"{minutes}:{seconds:02d}"


def _now():
  """Seconds of a clock that stands still while JAX compiles."""
  return time.monotonic() - compilation.seconds()


class Progress:
  """Shows step, loss, steps/s and the time left, all without compilation.

  Args:
    num_steps: of the whole run; start_step: where this process began.
    active: False on all processes but one.
    log_seconds: shortest time between two lines where lines are appended.
  """

  def __init__(
    self, num_steps, start_step, active=True, stream=None, log_seconds=10.0
  ):
    self._stream = stream or sys.stdout
    self._active = active
    self._num_steps = num_steps
    self._redraw = _redraws(self._stream)
    self._wait = 0.0 if self._redraw else log_seconds
    self._shown = -float("inf")
    self._width = 0
    self._mark = (_now(), start_step)
    self._rate = None

  def update(self, step, loss):
    """Shows a step; returns steps/s since the last call."""
    then, last = self._mark
    self._mark = (_now(), step)
    rate = (step - last) / max(self._mark[0] - then, 1e-9)
    old = rate if self._rate is None else self._rate
    self._rate = 0.7 * old + 0.3 * rate
    now, finished = time.monotonic(), step >= self._num_steps
    if self._active and (now - self._shown >= self._wait or finished):
      self._shown = now
      left = duration((self._num_steps - step) / self._rate)
      self._show(
        f"step {step}/{self._num_steps}  loss {loss:.4g}  "
        f"{self._rate:.3g} steps/s  {left} left"
      )
    return rate

  def pause(self):
    """Leaves out what happens until the next `resume` from steps/s."""
    self._paused = _now()

  def resume(self):
    then, step = self._mark
    self._mark = (then + _now() - self._paused, step)

  def note(self, text):
    """A line of its own, that stays."""
    if self._active:
      self._end_line()
      print(text, file=self._stream, flush=True)

  def close(self):
    if self._active:
      self._end_line()

  def _show(self, text):
    if self._redraw:
      padded = text.ljust(self._width)
      self._width = len(text)
      print("\r" + padded, end="", file=self._stream, flush=True)
    else:
      print(text, file=self._stream, flush=True)

  def _end_line(self):
    if self._redraw and self._width:
      print(file=self._stream, flush=True)
      self._width = 0


class Counter:
  """Shows how many of num are done and the time left, where that takes long.

  Args:
    quiet_seconds: of work that is shown nothing of.
  """

  def __init__(self, num, what="samples", stream=None, quiet_seconds=5.0):
    self._num, self._what = num, what
    self._stream = stream or sys.stderr
    self._start = time.monotonic()
    self._quiet = quiet_seconds
    self._redraw = _redraws(self._stream)

  def __call__(self, done):
    spent = time.monotonic() - self._start
    if spent < self._quiet or done >= self._num:
      if done >= self._num and self._redraw and spent >= self._quiet:
        print(file=self._stream, flush=True)
      return
    left = duration(spent * (self._num - done) / done)
    text = f"{done}/{self._num} {self._what}  {left} left"
    end = "" if self._redraw else "\n"
    start = "\r" if self._redraw else ""
    print(f"{start}{text}", end=end, file=self._stream, flush=True)
    if not self._redraw:
      self._quiet = spent + 10.0  # a log gets a line now and then
