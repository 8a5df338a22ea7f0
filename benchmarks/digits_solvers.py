"""Digits by six solvers at 5, 10 and 20 evaluations, as one picture.

    python -m diffflow_jax.train --config=configs/digits.py --workdir=DIR
    python benchmarks/digits_solvers.py DIR [--out=benchmarks/results]

Each row of the picture is a solver at a number of evaluations, one sample of
every class from the same noise; beside it the share of 1000 samples that an SVM
reads as their label, and their Fréchet distance over that of two halves of the
real digits (both from `digits_quality`). The grid is the config's.
"""

import argparse
import pathlib

from digits_quality import judge
import matplotlib

from diffflow_jax import plots
from diffflow_jax.plots.figures import subplots
from diffflow_jax.runs import generate, restore

matplotlib.use("Agg")
SOLVERS = ("ddim", "heun", "midpoint", "dpmpp_2m", "unipc", "sde_dpmpp_2m")
COUNTS = (5, 10, 20)
AGREEMENT = "samples that it reads as their label"
FRECHET = "Frechet distance, ratio to two halves"


def tableau(run, solver, count):
  """The most steps of the solver with at most count evaluations."""
  grid = run.config.sampler.grid
  for steps in range(count, 0, -1):
    made = generate.make_tableau(run.objective, solver, grid, steps)
    if made.num_evaluations <= count:
      return made


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("workdir")
  parser.add_argument("--out", default="benchmarks/results")
  parser.add_argument("--num_samples", type=int, default=1000)
  args = parser.parse_args()
  out = pathlib.Path(args.out)
  run = restore.load_recipe(args.workdir)
  _, ema = restore.load_ema(args.workdir, run)
  predict = generate.make_predict(run, ema, run.config.sampler.guidance)
  rows = [(s, c) for s in SOLVERS for c in COUNTS]
  fig, axes = subplots(len(rows), 1, figsize=(6.4, 0.56 * len(rows)))
  lines = [
    "| solver | NFE | label agreement | Fréchet ratio |",
    "|---|---|---|---|",
  ]
  for ax, (solver, count) in zip(axes, rows, strict=True):
    table = tableau(run, solver, count)
    samples, labels = generate.generate(
      run, predict, table, num_samples=args.num_samples, seed=0
    )
    found = judge(samples, labels)
    agreement, frechet = found[AGREEMENT], found[FRECHET]
    n = table.num_evaluations
    lines.append(f"| {solver} | {n} | {agreement:.3f} | {frechet:.2f} |")
    print(lines[-1], flush=True)
    ax.imshow(
      plots.image_grid(samples[:10], columns=10)[..., 0],
      cmap="gray",
      vmin=0,
      vmax=255,
    )
    ax.set_axis_off()
    ax.set_title(
      f"{solver}, {n} evaluations: {100 * agreement:.1f} % read as their "
      f"label, Fréchet ratio {frechet:.2f}",
      fontsize=7,
      loc="left",
      pad=1,
    )
  fig.savefig(out / "digits_solvers.png", dpi=130, bbox_inches="tight")
  text = [
    "# Digits by solver", "",
    f"{args.num_samples} samples each, guidance "
    f"{run.config.sampler.guidance:g}, grid {run.config.sampler.grid}. An SVM "
    "reads the samples; the Fréchet distance is over that of two halves of the "
    "real digits.", "", *lines, "",
  ]  # fmt: skip
  (out / "digits_solvers.md").write_text("\n".join(text))


if __name__ == "__main__":
  main()
