"""What an evaluation leaves: evaluation.json, evaluation.png, and its words.

The JSON is a function of the run and of what was asked for: it holds no times,
so an evaluation that was killed leaves the same one in the end.
"""

import json
import os
import tempfile

from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.plots import scores as figures
from diffflow_jax.store import paths

RESULT, FIGURE = "evaluation.json", "evaluation.png"


def claim(out, name):
  """Makes the folder, or refuses one that cannot be written to."""
  try:
    if paths.is_remote(out):
      paths.use(out)
    elif os.path.isfile(out):
      raise Refusal(f"{name}: {out} is a file, and an evaluation is a folder")
    else:
      os.makedirs(out, exist_ok=True)
    probe = paths.join(out, "writing")
    paths.write(probe, "")
    paths.remove(probe) if paths.is_remote(out) else os.remove(probe)
  except OSError as error:
    raise Refusal(f"{name}: {out}: {paths.reason(error)}") from error


def write(out, result):
  """Writes both files; the figure only where a sampler has numbers."""
  text = json.dumps(result, indent=2, allow_nan=False) + "\n"
  figure = figures.evaluation(result)
  try:
    paths.write(paths.join(out, RESULT), text)
    if figure is not None:
      with tempfile.TemporaryDirectory() as scratch:
        local = os.path.join(scratch, FIGURE)
        figure.savefig(local, dpi=110)
        with open(local, "rb") as file:
          paths.write(paths.join(out, FIGURE), file.read())
  except OSError as error:
    raise Failure(f"{out}: {paths.reason(error)}") from error


def text(result):
  """The numbers as lines: one for each number of each sampler, and words."""
  lines = []
  floor = result["reference"]["floor"]
  for one in result["samplers"]:
    head = f"{one['sampler']}, {one['evaluations']:g} evaluations"
    if "failed" in one:
      lines.append(f"{head}: failed, {one['failed']}")
    elif one["numbers"]:
      lines.append(f"{head}:")
    lines += _lines(one["numbers"])
  if floor:
    lines += ["real data in their place:", *_lines(floor)]
  if result["model"]:
    lines += ["the model itself:", *_lines(result["model"])]
  lines += [one["words"] for one in result["comparisons"]]
  notes = {}  # one line for all numbers that have the same
  for one in result["samplers"]:
    for name, entry in one["numbers"].items():
      if "note" in entry:
        notes.setdefault((one["sampler"], entry["note"]), []).append(name)
  said = [
    f"{sampler}: {', '.join(names)}: {note}"
    for (sampler, note), names in notes.items()
  ]
  return "\n".join([*lines, *said[:3]])


def _lines(numbers):
  return [f"  {name:24s} {_number(entry)}" for name, entry in numbers.items()]


def _number(entry):
  error = entry.get("standard_error")
  text = f"{entry['value']:.4g}"
  text += "" if error is None else f" ± {error:.2g}"
  if "num_samples" in entry:
    text += f"  ({entry['num_samples']:,})"
  return f"{text}  {entry['of']}" if "of" in entry else text
