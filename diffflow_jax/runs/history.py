"""The curves of a run: metrics.jsonl, one line of numbers every `log_every`."""

import json

from etils import epath
import numpy as np

METRICS = "metrics.jsonl"


def lines(path, last_step=float("inf")):
  """The whole lines up to a step, as text; a killed run may leave half a line.

  Args:
    path: of the file; without one there are no lines.
  """
  path = epath.Path(path)
  if not path.exists():
    return []
  kept = []
  for line in path.read_text().splitlines(keepends=True):
    try:
      if line.endswith("\n") and json.loads(line)["step"] <= last_step:
        kept.append(line)
    except ValueError:
      continue
  return kept


def read(workdir):
  """The metrics lines of a run, a list of dicts."""
  return [json.loads(line) for line in lines(epath.Path(workdir) / METRICS)]


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
