"""A command from its first instant on. Imports nothing, so that it is early."""

import importlib
import os
import signal


def _quietly(number, frame):
  os._exit(130)  # nothing is under way yet that would have to be undone


def command(name):
  """Runs the command of a name; Ctrl-C while it imports leaves no traceback."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _quietly)
  from diffflow_jax import cli

  cli.run(importlib.import_module(f"diffflow_jax.commands.{name}").main)
