"""Orbax's errors as one line."""

import contextlib
import io
import logging
import os
import re
import sys
import warnings


def quietly(load):
  """load(); if it fails, a ValueError of one line."""
  with contextlib.redirect_stderr(io.StringIO()):
    try:
      return load()
    except Exception as error:  # whatever a damaged file makes Orbax raise
      reason = root_cause(error)
  raise ValueError(reason)


def hush():
  """From now on, Orbax says what failed by raising it, and in no other way.

  It logs its errors as well, with tracebacks. Its threads print up to thousands
  of lines more, some as late as the end of the program: through asyncio's log,
  as warnings of coroutines that nobody awaits, and through the hook for errors
  that nobody catches.
  """
  logging.getLogger("absl").addFilter(_not_of_orbax)
  logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
  warnings.filterwarnings("ignore", "coroutine .* was never awaited")
  if not isinstance(sys.excepthook, _Hook):
    sys.excepthook = _Hook(sys.excepthook)


def _not_of_orbax(record):
  return record.levelno < logging.ERROR or "orbax" not in record.pathname


class _Hook:
  """Shows uncaught errors, but for those of threads whose loop has ended."""

  def __init__(self, show):
    self._show = show

  def __call__(self, kind, error, trace):
    if str(error) != "Event loop is closed":
      self._show(kind, error, trace)


def root_cause(error):
  """The first line of the innermost error, where Orbax wraps them."""
  while error.__cause__ is not None:
    error = error.__cause__
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if code:
    return os.strerror(int(code[1]))
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]
