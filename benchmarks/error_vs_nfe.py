"""Error against network evaluations: every deterministic solver, grid, problem.

    python benchmarks/error_vs_nfe.py [--quick] [--out=DIR] [--learned]

Samples of two closed-form mixtures (exact denoiser) from one batch of noise,
against RK4 with 1000 evaluations. One compilation a problem: tableaus are
padded. Writes error_vs_nfe.md and .png; --learned adds fitted tableaus.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import diffflow_jax as dfj
from diffflow_jax.plots import solvers as figures
from diffflow_jax.sampling import learned, noise

matplotlib.use("Agg")
S = dfj.solvers
SOLVERS = {
  "ddim": S.ddim,
  "heun, flow": S.heun,
  "heun, sigma": lambda l: S.heun(l, "sigma"),
  "heun, angle": lambda l: S.heun(l, "angle"),
  "midpoint, flow": S.midpoint,
  "rk4, flow": S.rk4,
  "dpmpp_2s": S.dpmpp_2s,
  "dpmpp_3s": S.dpmpp_3s,
  "dpmpp_2m": S.dpmpp_2m,
  "dpmpp_3m": S.dpmpp_3m,
  "unipc 2": lambda l: S.unipc(l, 2),
  "unipc 3": lambda l: S.unipc(l, 3),
  "deis 2": lambda l: S.deis(l, 2),
  "deis 3": lambda l: S.deis(l, 3),
  "ab 2, flow": S.adams_bashforth,
  "ab 3, flow": lambda l: S.adams_bashforth(l, 3),
  "ab 2, angle": lambda l: S.adams_bashforth(l, 2, "angle"),
  "lms 2 (sigma)": lambda l: S.adams_bashforth(l, 2, "sigma"),
}
LO = -9.0  # finite start, so that every coordinate takes part; sigma/alpha = 90


def grid(name, n):
  start = dfj.levels.at_logsnr(dfj.levels.vp, LO)
  flow, cosine = dfj.schedules.Flow(), dfj.schedules.Cosine()
  to_zero = lambda logsnr: dfj.grids.from_logsnr(np.append(logsnr, np.inf))
  if name == "flow":
    return dfj.grids.uniform_t(flow, dfj.levels.vp, n, float(flow.t(LO)))
  if name == "flow, shift 3":
    r = np.linspace(1, 0, n + 1)
    t = 3 * r / (1 + 2 * r) * float(flow.t(LO))
    return dfj.grids.from_t(flow, dfj.levels.vp, t)
  if name == "cosine":
    return dfj.grids.uniform_t(cosine, dfj.levels.vp, n, float(cosine.t(LO)))
  if name == "logsnr":
    return to_zero(np.linspace(LO, 9.0, n))
  if name == "karras":
    sigma_max = float(start.sigma / start.alpha)
    return dfj.grids.karras(n, sigma_max=sigma_max, scale=dfj.levels.vp)
  raise ValueError(name)


GRIDS = ("flow", "flow, shift 3", "cosine", "logsnr", "karras")
COUNTS = (5, 10, 20, 50, 100)


def problems():
  rng = np.random.default_rng(0)
  means = rng.normal(size=(6, 8))
  return {
    "smooth": dfj.closed_form.mixture(np.ones(6), means, np.full(6, 0.6)),
    "sharp": dfj.closed_form.mixture(np.ones(6), means, np.full(6, 0.1)),
  }


def tables(counts):
  made = {}
  for label, solver in SOLVERS.items():
    per_step = {"heun": 2, "midp": 2, "rk4,": 4}.get(label[:4], 1)
    per_step = {"dpmpp_2s": 2, "dpmpp_3s": 3}.get(label, per_step)
    for name in GRIDS:
      for count in counts:
        for n in range(count // per_step + 2, 0, -1):
          if n < 2:
            break
          table = solver(grid(name, n))
          if table.num_evaluations <= count:
            made[label, name, count] = table
            break
  return made


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
  made = tables(counts)
  text, curves = ["# Error against evaluations", ""], {}
  for problem, mix in problems().items():
    num = 64 if args.quick else 256
    start = made["ddim", "flow", counts[0]].start
    keys = noise.keys(jax.random.key(0), 0, num)
    z = noise.initial(keys, jnp.asarray(start.sigma), (8,), jnp.float64)
    goal = dfj.sample(mix, S.rk4(grid("cosine", 250)), keys[0], z.shape, z=z)
    errors = {}
    for key, table in made.items():
      errors[key] = float(learned.error(mix, dfj.pad(table, 100, 4), z, goal))
    best = lambda label, count, errors=errors: min(
      (errors[label, g, count], g) for g in GRIDS if (label, g, count) in errors
    )
    text += [
      f"## {problem}",
      "",
      "Mean over samples of their RMS error, on the best grid of each solver.",
      "",
    ]
    text += ["| solver | " + " | ".join(f"NFE {c}" for c in counts) + " |"]
    text += ["|---" * (len(counts) + 1) + "|"]
    curves[problem] = {}
    for label in SOLVERS:
      row, points = [], []
      for c in counts:
        if any((label, g, c) in errors for g in GRIDS):
          e, g = best(label, c)
          row.append(f"{e:.1e} {g}")
          points.append((made[label, g, c].num_evaluations, e))
        else:
          row.append("-")
      text.append(f"| {label} | " + " | ".join(row) + " |")
      curves[problem][label] = tuple(np.array(points).T)
    c = counts[-1] if args.quick else 20
    text += ["", f"Every grid at NFE {c}.", ""]
    text += ["| solver | " + " | ".join(GRIDS) + " |"]
    text += ["|---" * (len(GRIDS) + 1) + "|"]
    for label in SOLVERS:
      row = [
        f"{errors[label, g, c]:.1e}" if (label, g, c) in errors else "-"
        for g in GRIDS
      ]
      text.append(f"| {label} | " + " | ".join(row) + " |")
    text.append("")
    if args.learned:
      text += ["| NFE | best hand-made | learned | ratio |"]
      text += ["|---" * 4 + "|"]
      for c in (5, 10):
        table, report = learned.fit_tableau(
          mix, grid("flow", 10), c, jax.random.key(1), (8,)
        )
        e = float(learned.error(mix, table, z, goal))
        by_hand = min(v for (_, _, n), v in errors.items() if n == c)
        text.append(f"| {c} | {by_hand:.1e} | {e:.1e} | {by_hand / e:.1f} |")
      text.append("")
  figures.error_against_evaluations(curves).savefig(
    out / "error_vs_nfe.png", dpi=130
  )
  (out / "error_vs_nfe.md").write_text("\n".join(text))
  print("\n".join(text))


if __name__ == "__main__":
  main()
