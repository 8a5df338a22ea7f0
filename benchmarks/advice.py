"""Which solver and grid to take, when it is not known for which problem.

  python -m diffflow_jax.train --config=configs/digits.py --workdir=DIGITS
  python -m diffflow_jax.train --config=configs/fashion_mnist.py:cpu \\
      --workdir=FASHION --config.network.patch=7 --config.network.width=96 \\
      --config.network.depth=4 --config.num_steps=1000 \\
      --config.sample_every=1000 --config.checkpoint_every=500
  python benchmarks/advice.py --run=FASHION --run=DIGITS [--quick] \\
      [--out=benchmarks/results] [--errors=FILE.json]

Every solver of POOL on every grid of `candidates`, 5 to 100 evaluations, from
one batch of noise, against a fine solution: five closed forms of unlike kind in
float64, and the networks of the runs (that of Fashion-MNIST is a small one, for
a CPU). An error is the median over samples of their RMS distance to the fine
solution's, or its root mean square over samples too; a ratio is the error over
the best pair's on the same problem, by the same measure. The choice at a number
of evaluations is the pair whose worst ratio is the least. To see whether it
carries over it is made again without each problem in turn, and looked at on
that one. Writes advice.md and .json; `--errors` keeps what is measured in a
file, and what is in there is not measured again.
"""

import argparse
import functools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import diffflow_jax as dfj
from diffflow_jax.cli import Refusal
from diffflow_jax.process import levels as levels_lib
from diffflow_jax.runs import samplers
from diffflow_jax.sampling import candidates, noise, solvers

COUNTS = (5, 10, 20, 50, 100)
START, END = dfj.grids.from_logsnr([-np.inf, np.inf], levels_lib.vp)
POOL = (
  "ddim",
  "midpoint",
  "midpoint:coordinate=angle",
  "heun",
  "heun:coordinate=angle",
  "bogacki_shampine",
  "rk4",
  "rk4:coordinate=angle",
  "rk38",
  "rk38:coordinate=angle",
  "dpmpp_2m",
  "dpmpp_3m",
  "unipc",
  "unipc:order=3",
  "deis:order=3",
  "deis:order=3,coordinate=flow",
  *(
    f"adams_bashforth:order={order}{coordinate}{start}"
    for order in (2, 3, 4)
    for coordinate in ("", ",coordinate=angle")
    for start in ("", ",two_stage_start=True")
  ),
)
# as `sample` calls them
GRID_SPECS = {
  "flow": "uniform_flow",
  "flow_shift_3": "uniform_flow:shift=3",
  "flow_stretch_1.5": "uniform_flow:stretch=1.5",
  **{
    f"flow_power_{p:g}": f"uniform_flow:power={p:g}" for p in candidates.POWERS
  },
  "cosine": "uniform_cosine",
}
FINE = 250  # steps of the fine solution, four evaluations each
# for comparison
USUAL = (
  "ddim|flow",
  "dpmpp_2m|flow",
  "dpmpp_2m|karras_7",
  "unipc|flow",
  "midpoint|cosine",
  "rk4|flow",
)
FLOOR = 1e-5  # smaller errors are equal: float32 keeps no more on such a way
NEAR = 2.5  # later networks see the pairs that came as near the best before


def closed_forms():
  """{name: (predict, dimensions)}."""
  rng = np.random.default_rng(0)
  means = rng.normal(size=(6, 8))
  plane = rng.normal(size=(5, 2))
  angle = 2.0 * np.pi * np.arange(8) / 8
  ring = np.stack([np.cos(angle), np.sin(angle)], 1)
  mixture = lambda means, std: dfj.closed_form.mixture(
    np.ones(len(means)), means, np.full(len(means), std)
  )
  points = np.asarray(dfj.data.moons().batch(0, 0, 64)["x"], np.float64)
  return {
    "8-D, smooth": (mixture(means, 0.6), 8),
    "8-D, sharp": (mixture(means, 0.1), 8),
    "2-D, smooth": (mixture(plane, 0.5), 2),
    "2-D, sharp": (mixture(ring, 0.05), 2),
    "64 points": (mixture(points, 0.05), 2),
  }


def tables(count):
  """{"solver|grid": padded Tableau} of at most count evaluations."""
  grids = functools.cache(
    lambda steps: candidates.candidate_grids(START, END, steps)
  )
  made = {}
  for spec in POOL:
    make = lambda grid, spec=spec: samplers.call(
      "solver", spec, solvers.SOLVERS, grid
    )
    steps = candidates.most_steps(make, lambda n: grids(n)["flow"], count)
    for name, grid in grids(steps).items() if steps else ():
      try:
        made[f"{spec}|{name}"] = dfj.pad(make(grid), max(COUNTS), 4)
      except Refusal:  # a start that this solver cannot take
        continue
  return made


def measure(predict, shape, num, dtype, asked, cond=None, fine="cosine"):
  """{count: {pair: [median, root mean square]}} of {count: {pair: table}}."""
  if not any(asked.values()):
    return {}
  key = jax.random.key(0)
  z = noise.initial(noise.keys(key, 0, num), jnp.ones(()), shape, dtype)
  grid = candidates.candidate_grids(START, END, FINE)[fine]
  goal = np.asarray(dfj.sample(predict, solvers.rk4(grid), z=z, cond=cond))

  def errors(table):
    got = np.asarray(dfj.sample(predict, table, z=z, cond=cond))
    square = ((got - goal) ** 2).reshape(num, -1).mean(1)
    both = np.sqrt([np.median(square), np.mean(square)])
    return [float(f"{e:.3e}") for e in both]

  return {
    count: {pair: errors(table) for pair, table in made.items()}
    for count, made in asked.items()
  }


def measure_run(path, num, asked):
  """The same of a trained run's network, unguided, on its classes in turn.

  A network is as rough in log-SNR at the ends as in between, where a closed
  form is smooth: the fine solution takes its steps there.
  """
  with jax.enable_x64(False):
    run = dfj.load(path)
    labels = run.labels(num)
    cond = None if labels is None else jnp.asarray(labels)
    return measure(
      run.predict, run.card.shape, num, jnp.float32, asked, cond, "logsnr"
    )


def promising(errors, count, pair):
  """Whether a pair is within NEAR times of the best on any of the problems."""
  for by in errors.values():
    least = np.maximum(np.min(list(by[count].values()), axis=0), FLOOR)
    if pair in by[count] and (by[count][pair] < NEAR * least).any():
      return True
  return False


def ratios(errors, count):
  """(pairs, problems, ratios (pair, problem, measure))."""
  problems = list(errors)
  pairs = [
    p
    for p in errors[problems[0]][count]
    if all(p in errors[of][count] for of in problems)
  ]
  e = np.array([[errors[of][count][p] for of in problems] for p in pairs])
  e = np.maximum(e, FLOOR)
  return pairs, problems, e / np.nanmin(e, axis=0)


def choose(ratio):
  """The row whose worst ratio is the least."""
  return int(np.argmin(np.nan_to_num(ratio, nan=np.inf).max((1, 2))))


def advise(errors, counts):
  """{count: what is chosen of all, and what without each problem}."""
  advice = {}
  for count in counts:
    pairs, problems, ratio = ratios(errors, count)
    best = choose(ratio)
    left_out = {}
    for i, problem in enumerate(problems):
      others = np.delete(ratio, i, axis=1)
      row = choose(others)
      left_out[problem] = dict(
        pair=pairs[row],
        median=round(float(ratio[row, i, 0]), 2),
        rms=round(float(ratio[row, i, 1]), 2),
      )
    solver, grid = pairs[best].split("|")
    advice[count] = dict(
      solver=solver,
      grid=GRID_SPECS.get(grid, grid),
      worst_ratio=round(float(ratio[best].max()), 2),
      left_out=left_out,
    )
  return advice


def table(head, rows):
  line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"
  return [line(head), "|---" * len(head) + "|", *map(line, rows), ""]


def worst(errors, count, pair):
  """The worst ratio of a pair, over the problems that saw it."""
  seen = [
    np.maximum(by[count][pair], FLOOR)
    / np.maximum(np.min(list(by[count].values()), axis=0), FLOOR)
    for by in errors.values()
    if pair in by[count]
  ]
  return f"{np.max(seen):.1f}"


def text(errors, advice, sizes):
  """advice.md."""
  problems = list(errors)
  lines = [
    "# What to use", "",
    "`python benchmarks/advice.py`, as it says: the pair of solver and grid "
    f"with the least worst ratio to the best of {sizes} pairs, over "
    f"{len(problems)} problems, by the median and by the root mean square of "
    "samples. `--solver=auto` is this table. Errors below "
    f"{FLOOR:g} count as that; networks were shown the pairs that were within "
    f"{NEAR:g} times the best somewhere before.", "",
    *table(
      ["evaluations", "solver", "grid", "worst ratio"],
      [
        [c, f"`{a['solver']}`", f"`{a['grid']}`", a["worst_ratio"]]
        for c, a in advice.items()
      ],
    ),
    "Chosen without a problem and looked at on it: times the best there, by "
    "the median / by the root mean square.", "",
    *table(
      ["evaluations", *problems],
      [
        [c, *(
          f"{a['left_out'][p]['median']} / {a['left_out'][p]['rms']}"
          for p in problems
        )]
        for c, a in advice.items()
      ],
    ),
  ]  # fmt: skip
  lines += ["The same worst ratio of usual pairs.", ""]
  cell = lambda text: text.replace("|", ", ")
  lines += table(
    ["evaluations", *map(cell, USUAL)],
    [[c, *(worst(errors, c, pair) for pair in USUAL)] for c in advice],
  )
  lines += ["The best of each problem, by the median, and its error.", ""]
  rows = []
  for c in advice:
    best = lambda p, c=c: min(errors[p][c], key=lambda k: errors[p][c][k][0])
    rows.append(
      [c, *(f"{best(p)} {errors[p][c][best(p)][0]:.1e}" for p in problems)]
    )
  return lines + table(
    ["evaluations", *problems], [[r[0], *map(cell, r[1:])] for r in rows]
  )


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--run", action="append", default=[])
  parser.add_argument("--quick", action="store_true")
  parser.add_argument("--out", default="benchmarks/results")
  parser.add_argument("--errors")
  args = parser.parse_args()
  jax.config.update("jax_enable_x64", True)
  counts = COUNTS[:2] if args.quick else COUNTS
  num, few = (16, 4) if args.quick else (256, 8)
  made = {count: tables(count) for count in counts}
  kept = pathlib.Path(args.errors) if args.errors else None
  errors = json.loads(kept.read_text()) if kept and kept.exists() else {}
  errors = {p: {int(c): e for c, e in by.items()} for p, by in errors.items()}
  exact = {
    name: functools.partial(measure, predict, (size,), num, jnp.float64)
    for name, (predict, size) in closed_forms().items()
  }
  runs = {
    f"{pathlib.Path(path).name} network": functools.partial(
      measure_run, path, few
    )
    for path in args.run
  }
  for name, case in (exact | runs).items():
    start = time.process_time()
    known = errors.setdefault(name, {c: {} for c in counts})
    before = {n: by for n, by in errors.items() if n != name}
    everything = name in exact or name == next(iter(runs))
    asked = {
      count: {
        pair: table
        for pair, table in made[count].items()
        if pair not in known[count]
        and (everything or promising(before, count, pair))
      }
      for count in counts
    }
    for count, new in case(asked).items():
      known[count].update(new)
    print(f"{name}: {time.process_time() - start:.0f} s", flush=True)
    if kept:
      kept.write_text(json.dumps(errors))
  advice = advise(errors, counts)
  sizes = len(errors[next(iter(errors))][counts[-1]])
  lines = text(errors, advice, sizes)
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  (out / "advice.md").write_text("\n".join(lines))
  (out / "advice.json").write_text(json.dumps(advice, indent=1) + "\n")
  print("\n".join(lines))


if __name__ == "__main__":
  main()
