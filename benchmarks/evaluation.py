"""Tables of evaluations, as benchmarks/results/evaluation.md has them.

  python benchmarks/evaluation.py OUT ...

of folders that `python -m diffflow_jax.evaluate --out=OUT` wrote.
"""

import json
import pathlib
import sys


def table(result):
  """Markdown lines: a row for each sampler, the real data last."""
  done = [one for one in result["samplers"] if one["numbers"]]
  if not done:
    return []
  names = list(done[0]["numbers"])
  lines = [
    f"| sampler | evaluations | {' | '.join(names)} |",
    f"|---|---:|{'---:|' * len(names)}",
  ]
  for one in done:
    cells = [number(one["numbers"].get(name)) for name in names]
    lines.append(
      f"| {one['sampler']} | {one['evaluations']:g} | {' | '.join(cells)} |"
    )
  floor = result["reference"]["floor"]
  cells = [number(floor.get(name)) for name in names]
  return [*lines, f"| *real data* | | {' | '.join(cells)} |"]


def number(entry):
  """ "2.14 ± 0.37", or nothing."""
  if entry is None:
    return ""
  error = entry["standard_error"]
  text = f"{entry['value']:.3g}"
  return text if error is None else f"{text} ± {error:.2g}"


def bits(result):
  """Markdown lines of bits per dimension, or none."""
  lines = [
    f"| {name} | {number(entry)} | {entry['logsnr']:.2f} | {entry['of']} |"
    for name, entry in result["model"].items()
    if name.startswith("bpd")
  ]
  head = ["| bits per dimension | value | down to logsnr | what it is |",
          "|---|---:|---:|---|"]  # fmt: skip
  return [*head, *lines] if lines else []


def main(folders):
  for folder in folders:
    path = pathlib.Path(folder) / "evaluation.json"
    result = json.loads(path.read_text())
    words = [f"- {one['words']}" for one in result["comparisons"]]
    print("\n".join([*table(result), *bits(result), *words]), end="\n\n")


if __name__ == "__main__":
  main(sys.argv[1:])
