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
  as warnings of coroutines that nobody awaits, and through the hooks for errors
  that nobody catches.
  """
  logging.getLogger("absl").addFilter(_not_of_orbax)
  logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
  warnings.filterwarnings("ignore", "coroutine .* was never awaited")
  _filter_hook("excepthook", lambda kind, error, trace: error)
  _filter_hook("unraisablehook", lambda unraisable: unraisable.exc_value)


def _not_of_orbax(record):
  return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _filter_hook(name, error_of):
  """Keeps a hook of sys from errors of threads whose event loop has ended."""
  show = getattr(sys, name)
  if hasattr(show, "error_of"):  # it is one of ours
    return

  def hook(*args):
    if str(error_of(*args)) != "Event loop is closed":
      show(*args)

  hook.error_of = error_of
  setattr(sys, name, hook)


def root_cause(error):
  """The first line of the innermost error, where Orbax wraps them."""
  while error.__cause__ is not None:
    error = error.__cause__
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if code:
    return os.strerror(int(code[1]))
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]
