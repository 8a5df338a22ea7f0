"""Runs the commands as a user does: in a process of their own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def environment(**extra):
  """The environment of a command, on the CPU and quiet."""
  return {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "PYTHONUNBUFFERED": "1",
    **extra,
  }


def command(name, *flags):
  return [sys.executable, "-m", f"diffflow_jax.{name}", *map(str, flags)]


def run(name, *flags, timeout=300, **extra):
  """The finished process: returncode, stdout, stderr."""
  return subprocess.run(
    command(name, *flags),
    cwd=ROOT,
    env=environment(**extra),
    capture_output=True,
    text=True,
    timeout=timeout,
  )


def start(name, *flags, **extra):
  """The running process, its output in pipes."""
  return subprocess.Popen(
    command(name, *flags),
    cwd=ROOT,
    env=environment(**extra),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
