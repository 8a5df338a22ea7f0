"""Draws the README's figure.

  python benchmarks/readme_figure.py runs/digits benchmarks/readme.png

From noise to data twice: points that a tiny network carries to the moons, and
digits of a trained run.
"""

import re
import sys

import jax
from matplotlib.figure import Figure
import numpy as np

import diffflow_jax as dfj
from diffflow_jax import plots
from diffflow_jax.runs import generate, restore


def moons(axes):
  """The README's example, and the way of its samples."""
  text = open("README.md").read()
  scope = {}
  exec(re.search(r"```python\n(.*?)```", text, re.S).group(1), scope)
  levels, key = scope["levels"], scope["key"]
  starts = []
  for i in range(1, len(levels.logsnr)):
    table = dfj.solvers.ddim(levels[: i + 1])
    starts.append(dfj.sample(scope["predict"], table, key, (200, 2)))
  z0 = jax.vmap(
    lambda i: jax.random.normal(
      jax.random.fold_in(jax.random.fold_in(key, i), 0), (2,)
    )
  )(np.arange(200))
  paths = np.stack([z0, *starts])
  axes.plot(paths[..., 0], paths[..., 1], c="0.8", lw=0.4)
  axes.scatter(*paths[0].T, s=4, c="C1", label="noise")
  axes.scatter(*np.asarray(scope["samples"]).T, s=3, c="C0", label="samples")
  axes.legend(loc="lower left", fontsize=7)


def digits(axes, directory):
  """100 guided samples of a run."""
  run = restore.load_recipe(directory)
  _, ema = restore.load_ema(directory, run)
  samples, _ = generate.generate(
    run,
    generate.make_predict(run, ema, 1.3),
    generate.make_tableau(run.objective, "midpoint", "uniform_cosine", 10),
    num_samples=100,
    seed=0,
  )
  picture = plots.image_grid(samples, columns=10)[..., 0]
  axes.imshow(picture, cmap="gray", interpolation="nearest")


if __name__ == "__main__":
  figure = Figure(figsize=(8, 4), dpi=110, layout="constrained")
  left, right = figure.subplots(1, 2)
  moons(left)
  digits(right, sys.argv[1])
  for axes in (left, right):
    axes.set_axis_off()
    axes.set_aspect("equal")
  figure.savefig(sys.argv[2])
