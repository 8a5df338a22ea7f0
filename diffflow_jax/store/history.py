"""The curves of a run: metrics.jsonl, one line of numbers every `log_every`."""

import json

import numpy as np

from diffflow_jax.store import paths

METRICS = "metrics.jsonl"


def sound(data, last_step=float("inf")):
  """The lines of a file's bytes that can be read, and how many cannot.

  Half a line at the end is what a killed run leaves, and is none.

  Args:
    last_step: lines of later steps are left out.
  Returns:
    ([line with its end], number)
  """
  kept, bad = [], 0
  for line in data.split(b"\n")[:-1]:
    step = _step_of(line)
    bad += step is None
    if step is not None and step <= last_step:
      kept.append(line + b"\n")
  return kept, bad


def _step_of(line):
  """The step of a line, or None if it is none of ours."""
  try:
    values = json.loads(line)
  except (ValueError, RecursionError):
    return None
  step = values.get("step") if isinstance(values, dict) else None
  return step if type(step) is int else None


def read(workdir):
  """The metrics lines of a run, a list of dicts."""
  try:
    data = paths.read(paths.join(workdir, METRICS))
  except FileNotFoundError:
    return []
  return [json.loads(line) for line in sound(data)[0]]


def columns(workdir):
  """The metrics of a run by name, {name: (lines,) array}.

  "step" is of integers, the others of float64, NaN where a line lacks them:
  what `pandas.DataFrame` takes. {} without lines.
  """
  rows = read(workdir)
  names = dict.fromkeys(name for row in rows for name in row)
  return {
    name: np.array([row["step"] for row in rows])
    if name == "step"
    else np.array([row.get(name, np.nan) for row in rows], np.float64)
    for name in names
  }
