"""Error against network evaluations: every deterministic solver, grid, problem.

    python benchmarks/error_vs_nfe.py [--quick] [--out=DIR] [--learned]

Samples of two closed-form mixtures (exact denoiser) from one batch of noise,
against RK4 with 1000 evaluations. Solvers and grids are those of
`diffflow_jax.sampling.candidates`. One compilation a problem: tableaus are
padded. Writes error_vs_nfe.md and .png; --learned adds fitted tableaus. What to
use is `advice.py`'s question.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import diffflow_jax as dfj
from diffflow_jax.plots import solvers as figures
from diffflow_jax.sampling import candidates, learned, noise

matplotlib.use("Agg")
COUNTS = (5, 10, 20, 50, 100)
# finite start, so that every coordinate takes part; sigma/alpha = 90
ENDS = dfj.grids.from_logsnr([-9.0, np.inf])
START, END = ENDS[0], ENDS[1]


def problems():
  means = np.random.default_rng(0).normal(size=(6, 8))
  return {
    "smooth": dfj.closed_form.mixture(np.ones(6), means, np.full(6, 0.6)),
    "sharp": dfj.closed_form.mixture(np.ones(6), means, np.full(6, 0.1)),
  }


def measure(mix, tables, num):
  """({(solver, grid, count): error}, the start, the goal)."""
  keys = noise.keys(jax.random.key(0), 0, num)
  z = noise.initial(keys, jnp.asarray(START.sigma), (8,), jnp.float64)
  fine = dfj.solvers.rk4(candidates.candidate_grids(START, END, 250)["cosine"])
  goal = dfj.sample(mix, fine, keys[0], z.shape, z=z)
  errors = {
    key: float(learned.error(mix, dfj.pad(table, 100, 4), z, goal))
    for key, table in tables.items()
  }
  return errors, z, goal


def table(head, rows):
  """Lines of a Markdown table."""
  line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"
  return [line(head), "|---" * len(head) + "|", *map(line, rows), ""]


def best_grids(errors, counts):
  """Every solver on its best grid, and its curve (solver, counts, errors)."""
  rows, curves = [], {}
  for solver in candidates.CANDIDATES:
    row, points = [solver], []
    for c in counts:
      of = {g: e for (s, g, n), e in errors.items() if (s, n) == (solver, c)}
      grid = min(of, key=of.get, default=None)
      row.append(f"{of[grid]:.1e} {grid}" if of else "-")
      points += [(c, of[grid])] if of else []
    rows.append(row)
    curves[solver] = tuple(np.array(points).T)
  return rows, curves


def fitted(mix, errors, z, goal, quick):
  """Rows (NFE, best hand-made, learned, ratio) on noise that no fit saw."""
  rows = []
  settings = dict(num_train=64, num_valid=64, num_steps=20) if quick else {}
  for c in (5, 10):
    made, report = learned.fit_tableau(
      mix, ENDS, c, jax.random.key(1), (8,), **settings
    )
    e = float(learned.error(mix, made, z, goal))
    by_hand, *name = min((v, *k[:2]) for k, v in errors.items() if k[2] == c)
    rows.append([
      c, f"{by_hand:.2e} ({', '.join(name)})",
      f"{e:.2e} (from {', '.join(report['started_from'])})",
      f"{by_hand / e:.1f}",
    ])  # fmt: skip
  return rows


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--quick", action="store_true")
  parser.add_argument("--learned", action="store_true")
  parser.add_argument("--out", default="benchmarks/results")
  args = parser.parse_args()
  jax.config.update("jax_enable_x64", True)
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  counts = COUNTS[:2] if args.quick else COUNTS
  num = 64 if args.quick else 4096
  tables = {
    (*key, c): t
    for c in counts
    for key, t in learned.hand_made(START, END, c).items()
  }
  text, curves, errors = [], {}, {}
  for problem, mix in problems().items():
    errors[problem], z, goal = measure(mix, tables, num)
    rows, curves[problem] = best_grids(errors[problem], counts)
    text += [
      f"## {problem}",
      "",
      f"Mean over {num} samples of their RMS error, best grid of each solver.",
      "",
      *table(["solver", *(f"NFE {c}" for c in counts)], rows),
    ]
    at = counts[-1] if args.quick else 20
    text += [f"Every grid at NFE {at}.", ""]
    names = list(candidates.candidate_grids(START, END, 5))
    cell = lambda s, g, of=errors[problem], at=at: (
      f"{of[s, g, at]:.1e}" if (s, g, at) in of else "-"
    )
    rows = [[s, *(cell(s, g) for g in names)] for s in candidates.CANDIDATES]
    text += table(["solver", *names], rows)
    if args.learned:
      text += ["Learned tableaus, on noise that no fit saw.", ""]
      text += table(
        ["NFE", "best hand-made", "learned", "ratio"],
        fitted(mix, errors[problem], z, goal, args.quick),
      )
  figure = figures.error_against_evaluations(curves)
  figure.savefig(out / "error_vs_nfe.png", dpi=130, bbox_inches="tight")
  head = ["# Error against evaluations", "", "What to use: `advice.md`.", ""]
  text = [*head, "![](error_vs_nfe.png)", "", *text]
  (out / "error_vs_nfe.md").write_text("\n".join(text))
  print("\n".join(text))


if __name__ == "__main__":
  main()
