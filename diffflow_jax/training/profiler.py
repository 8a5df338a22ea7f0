"""A profiler trace of a few steps, for TensorBoard or Perfetto."""

import os

import jax

from diffflow_jax.cli import Refusal


def parse(text, num_steps):
  """FIRST:LAST as (first, last), from one step to before another; or None.

  Raises:
    Refusal: it is no such window, or none of a run of num_steps.
  """
  if text is None:
    return None
  first, colon, last = text.partition(":")
  if not (colon and first.isdigit() and last.isdigit()):
    raise Refusal(f"--profile must be FIRST:LAST, as 10:15, not {text!r}")
  if not int(first) < int(last):
    raise Refusal(f"--profile: {first} must be before {last}")
  if int(first) >= num_steps:
    raise Refusal(
      f"--profile: the run ends at step {num_steps}, before {first}"
    )
  return int(first), int(last)


class Profiler:
  """Traces the steps of a window into workdir/profile. A context manager.

  Args:
    window: (first, last) steps, or None for no trace.
  """

  def __init__(self, workdir, window):
    self._directory = os.path.join(workdir, "profile")
    self._window = window
    self._on = False

  def at(self, step, state):
    """To be called before every step."""
    if self._window is None:
      return
    first, last = self._window
    if not self._on and first <= step < last:
      jax.block_until_ready(state)
      jax.profiler.start_trace(self._directory)
      self._on = True
    elif self._on and step >= last:
      jax.block_until_ready(state)
      self._stop()

  def _stop(self):
    jax.profiler.stop_trace()
    self._on, self._window = False, None

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    if self._on:
      self._stop()
