"""Learned tables of trained networks against every hand-made solver and grid.

    python benchmarks/learned_tables.py RUN[,FEATURES]... [--num_held=256]
        [--num_evaluations=4,5,8] [--out=benchmarks/results]

What `python -m diffflow_jax.fit` prints, of all solvers: the mean RMS distance
to the fine solution and the Fréchet distance to the run's data over that of two
halves of it, in pixels or in the features of a classifier that `train_features`
left in FEATURES, on noise that no fit saw, each hand-made solver on the grid
that 16 other noises found best of all that `candidates` knows.
"""

import argparse
import pathlib
import time

import diffflow_jax as dfj
from diffflow_jax.evaluation.extractors.classifier import classifier
from diffflow_jax.runs import fitting


def table(count, rows, seconds):
  """Lines of Markdown of one number of evaluations."""
  yield f"### {count} evaluations"
  yield ""
  yield "| solver, grid | error | Fréchet ratio |"
  yield "|---|---|---|"
  for name, error, ratio in rows:
    yield f"| {name} | {error:.4f} | {ratio:.3f} |"
  yield ""
  yield f"Fitted in {seconds:.0f} s of CPU time."
  yield ""


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("runs", nargs="+")
  parser.add_argument("--num_evaluations", default="4,5,8")
  parser.add_argument("--num_held", type=int, default=256)
  parser.add_argument("--num_train", type=int, default=64)
  parser.add_argument("--out", default="benchmarks/results")
  args = parser.parse_args()
  counts = [int(count) for count in args.num_evaluations.split(",")]
  lines = ["# Learned tables of trained networks", ""]
  for task in args.runs:
    path, _, folder = task.partition(",")
    run = dfj.load(path)
    spent = {}

    def say(line, spent=spent):
      print(line, flush=True)
      spent[line.partition(" ")[0]] = time.process_time()

    begun = time.process_time()
    _, about, rows = fitting.fit(
      run,
      counts,
      num_held=args.num_held,
      num_train=args.num_train,
      features=classifier(folder) if folder else None,
      say=say,
    )
    strength = f"guidance {about['guidance']:g}"
    lines += [f"## {run.config.dataset.name}, {strength}", ""]
    for count in counts:
      seconds = spent[str(count)] - begun
      lines += table(count, rows[count], seconds)
  text = "\n".join(lines)
  print(text)
  (pathlib.Path(args.out) / "learned_tables.md").write_text(text)


if __name__ == "__main__":
  main()
