"""What came of the runs of a sweep: a table, a file of it, and a picture."""

import csv
import io
import json

from diffflow_jax import cli
from diffflow_jax.cli import Refusal

HELD_OUT, LOSS = "held_out/eps_mse", "loss"
EVALUATION, RESULT = "eval", "evaluation.json"  # what `evaluate` leaves
ERROR = "_error"  # the end of a standard error's name
TABLE, PICTURE = "sweep.csv", "sweep.png"


def numbers(workdir, evaluated):
  """{name: the last one there is} of a run's metrics lines, and of evaluation.

  Args:
    evaluated: whether `evaluate` has judged it; its numbers are the first, with
      <name>_error beside them, and the sampler's name where it had several.
  """
  from diffflow_jax.store import history, paths

  found = {}
  if evaluated:
    path = paths.join(workdir, EVALUATION, RESULT)
    result = json.loads(paths.read(path))
    for sampler in result["samplers"]:
      several = len(result["samplers"]) > 1
      suffix = f" of {sampler['sampler']}" if several else ""
      found |= _flat(sampler["numbers"], suffix)
    found |= _flat(result["model"], "")
  for line in history.read(workdir):
    found |= line
  return found


def _flat(numbers, suffix):
  """Values and standard errors by name."""
  found = {}
  for name, entry in numbers.items():
    found[name + suffix] = entry.get("value")
    found[f"{name}{suffix}{ERROR}"] = entry.get("standard_error")
  return found


def chosen(metric, found):
  """The metric's name: what was asked for, or what there is.

  That is the first number of an evaluation, or the held-out loss, or the loss.

  Args:
    found: [{name: number} of one run].
  Raises:
    Refusal: none of the runs has it.
  """
  known = list(dict.fromkeys(name for one in found for name in one))
  if metric is None:
    judged = [name for name in known if name + ERROR in known]
    held_out = [HELD_OUT] if HELD_OUT in known else []
    return [*judged, *held_out, LOSS][0]
  if known and metric not in known:
    what = cli.unknown(metric, known)
    raise Refusal(f"--metric: no run has {metric!r}; {what}")
  return metric


def rows_of(entries, states, found, metric):
  """A dict for each run: its name, what was swept, state, step, metric."""
  fields = dict.fromkeys(k for entry in entries for k in entry.overrides)
  rows = []
  for entry, state, numbers in zip(entries, states, found, strict=True):
    row = {"run": entry.name, "state": state, "step": numbers.get("step")}
    row |= {field: _value(entry, field) for field in fields}
    row |= {name: numbers.get(name) for name in (metric, metric + ERROR)}
    rows.append(row)
  return rows


def _value(entry, field):
  """What a run has in a field: what was yielded, or what its config says."""
  if field in entry.overrides:
    return entry.overrides[field]
  value = entry.config
  for part in field.split("."):
    value = value.get(part) if hasattr(value, "get") else None
  return value


def as_text(rows, metric):
  """The rows under each other, the names of columns on top.

  A run's name says what was swept.
  """
  error = metric + ERROR
  columns = ["run", metric, error, "step", "state"]
  if all(row[error] is None for row in rows):
    columns.remove(error)
  cells = [columns, *([_short(row[k]) for k in columns] for row in rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return "\n".join(
    "  ".join(
      cell.ljust(width) for cell, width in zip(line, widths, strict=True)
    ).rstrip()
    for line in cells
  )


def _short(value):
  if value is None:
    return "-"
  return f"{value:.5g}" if isinstance(value, float) else str(value)


def write(out, rows, metric):
  """The table as CSV, and a picture of the finished runs; the files' names."""
  from diffflow_jax.plots.sweeps import plot_sweep
  from diffflow_jax.store import paths

  text = io.StringIO()
  table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
  table.writeheader()
  table.writerows(rows)
  paths.write(paths.join(out, TABLE), text.getvalue())
  swept = list(rows[0])[3:-2]
  points = [
    ({k: row[k] for k in swept}, row[metric], row[metric + ERROR])
    for row in rows
    if row["state"] == "finished" and row[metric] is not None
  ]
  if not points:
    return [TABLE]
  image = io.BytesIO()
  plot_sweep(points, metric).figure.savefig(image, format="png", dpi=150)
  paths.write(paths.join(out, PICTURE), image.getvalue())
  return [TABLE, PICTURE]
