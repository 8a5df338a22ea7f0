"""Orbax's errors as one line."""

import contextlib
import gc
import io
import logging
import os
import re
import time


def quietly(load):
  """load(); if it fails, a ValueError of one line.

  Orbax's threads print thousands of lines about a damaged file, and go on for a
  moment after the error, until what they hold is collected.
  """
  asyncio_log = logging.getLogger("asyncio")
  level = asyncio_log.level
  with contextlib.redirect_stderr(io.StringIO()):
    try:
      return load()
    except Exception as error:  # whatever a damaged file makes Orbax raise
      reason = root_cause(error)
    asyncio_log.setLevel(logging.CRITICAL + 1)
    time.sleep(1.0)
    gc.collect()
    asyncio_log.setLevel(level)
  raise ValueError(reason)


def root_cause(error):
  """The first line of the innermost error, where Orbax wraps them."""
  while error.__cause__ is not None:
    error = error.__cause__
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if code:
    return os.strerror(int(code[1]))
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]
