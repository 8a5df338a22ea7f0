# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Samplers
#
# A sampler is a table of numbers: what it costs, which order it has and who makes the
# sample are read off it. All of it on a mixture whose exact solution is known, so an
# error is measured and not guessed; a learned table, inversion, SDEdit and inpainting
# at the end. About half a minute on a CPU.

# %%
REPOSITORY = "https://github.com/diffflow-jax/diffflow_jax"
try:
  import diffflow_jax as dfj
except ImportError:
  import subprocess
  import sys

  pip = [sys.executable, "-m", "pip", "install", "-q"]
  subprocess.run([*pip, f"diffflow_jax[ode] @ git+{REPOSITORY}"], check=True)
  import diffflow_jax as dfj

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

SMOKE = bool(os.environ.get("DIFFFLOW_SMOKE"))
num = 50 if SMOKE else 500
model = dfj.closed_form.mixture(
  [0.3, 0.4, 0.3], [[-1.5, -0.5], [0.2, 1.2], [1.3, -0.7]], [0.25, 0.35, 0.2]
)
flow, linear = dfj.schedules.Flow(), dfj.levels.linear
key = jax.random.key(0)
z = jax.random.normal(key, (num, 2))
uniform = lambda n: dfj.grids.uniform_t(flow, linear, n)
x = dfj.sample(model, dfj.solvers.unipc(uniform(10)), z=z)

# %% [markdown]
# ## The table
#
# Row i mixes (anchor, z, kept predictions, noise) to the state of the next evaluation.
# NFE is the number of rows less one.

# %%
table = dfj.solvers.dpmpp_2m(uniform(4))
np.set_printoptions(precision=3, suppress=True)
print(table.num_evaluations, "evaluations,", table.num_kept, "kept predictions")
print(np.asarray(table.mix)[:, 0])

# %% [markdown]
# ## Compile once
#
# Padded to a common size, tables are data of one compiled program.

# %%
five = [
  make(uniform(6))
  for make in (
    dfj.solvers.ddim, dfj.solvers.heun, dfj.solvers.unipc,
    dfj.solvers.sde_dpmpp_2m, dfj.solvers.rk4,
  )
]  # fmt: skip
most = max(t.num_evaluations for t in five)
kept = max(t.num_kept for t in five)
run = jax.jit(lambda t: dfj.sample(model, t, key, (100, 2)))
for t in five:
  run(dfj.pad(t, most, kept))
print(run._cache_size(), "compilation for", len(five), "solvers")
assert run._cache_size() == 1

# %% [markdown]
# ## Error against evaluations
#
# Beside a fine solution from the same noise. The slope is the order.

# %%
exact = dfj.sample(model, dfj.solvers.rk38(uniform(200)), z=z)
solvers = {
  "ddim (1)": dfj.solvers.ddim,
  "midpoint (2)": dfj.solvers.midpoint,
  "dpmpp_2m (2)": dfj.solvers.dpmpp_2m,
  "unipc (3)": dfj.solvers.unipc,
  "rk4 (4)": dfj.solvers.rk4,
}
steps = (4, 8) if SMOKE else (3, 4, 6, 8, 12, 16, 24)
plt.figure(figsize=(5.5, 3.5))
for name, solver in solvers.items():
  tables = [solver(uniform(n)) for n in steps]
  errors = [
    float(jnp.sqrt(jnp.mean((dfj.sample(model, t, z=z) - exact) ** 2)))
    for t in tables
  ]
  plt.loglog([t.num_evaluations for t in tables], errors, "o-", label=name)
plt.xlabel("evaluations")
plt.ylabel("error")
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Noise on the way
#
# `eta` draws noise at every step: the law stays, the path of a sample does not. One
# Brownian path a sample (`brownian=`) makes grids of 20 and 40 steps comparable.

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True)
for ax, eta in zip(axes, (0.0, 0.5, 1.0), strict=True):
  noisy = dfj.solvers.sde_dpmpp_2m(uniform(20), eta=eta)
  drawn = dfj.sample(model, noisy, key, (num, 2))
  ax.scatter(*np.asarray(drawn).T, s=3)
  ax.set_title(f"eta = {eta}")
plt.show()
dfj.plots.churn(uniform(20))  # who makes the sample, for three etas

# %% [markdown]
# ## Guidance, in an interval
#
# A weight on one class, or only between two levels: strong guidance at high noise
# narrows, in the middle it sharpens.

# %%
first = dfj.closed_form.gaussian([-1.5, -0.5], 0.25)


def both(z, lv, cond):  # cond 0: the first mode; cond 1: all of them
  one, all_ = first(z, lv), model(z, lv)
  pick = (cond == 0)[:, None]
  return tuple(jnp.where(pick, a, b) for a, b in zip(one, all_, strict=True))


settings = {
  "w = 1": dict(strength=1.0),
  "w = 3": dict(strength=3.0),
  "w = 3, logsnr -1 to 3": dict(strength=3.0, interval=(-1.0, 3.0)),
}
fig, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True)
for ax, (name, how) in zip(axes, settings.items(), strict=True):
  guided = dfj.Guided(both, null=1, **how)
  label = jnp.zeros(num, jnp.int32)
  drawn = dfj.sample(guided, dfj.solvers.dpmpp_2m(uniform(20)), z=z, cond=label)
  ax.scatter(*np.asarray(drawn).T, s=3)
  ax.set_title(name)
plt.show()

# %% [markdown]
# ## Inversion and interpolation
#
# A grid run backwards encodes. Half-way between two codes lies a sample, too.

# %%
there = dfj.solvers.heun(dfj.grids.reverse(uniform(40)))
code = dfj.sample(model, there, z=x)
back = dfj.sample(model, dfj.solvers.heun(uniform(40)), z=code)
print("there and back:", float(jnp.abs(back - x).max()))
assert jnp.abs(back - x).max() < 0.02
angle = jnp.linspace(0, jnp.pi / 2, 9)[:, None]
between = jnp.cos(angle) * code[0] + jnp.sin(angle) * code[1]
print(dfj.sample(model, dfj.solvers.heun(uniform(20)), z=between))

# %% [markdown]
# ## SDEdit
#
# Noise a rough guess half-way, and let the model finish it.

# %%
guess = jnp.tile(jnp.array([[0.0, 0.5]]), (num, 1))
grid = uniform(20)
half = dfj.levels.add_noise(guess, z, grid[10])
edited = dfj.sample(model, dfj.solvers.heun(grid[10:]), z=half)
plt.figure(figsize=(3.5, 3))
plt.scatter(*np.asarray(x).T, s=3, label="the law")
plt.scatter(*np.asarray(edited).T, s=3, label="edited")
plt.scatter(*np.asarray(guess[:1]).T, marker="x", color="k", label="guess")
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## A learned table
#
# A table is differentiable, so it can be fitted to a model and a number of steps. For
# a trained run: `python -m diffflow_jax.fit --workdir=RUN --num_evaluations=5`.

# %%
size = 64 if SMOKE else 256
best, report = dfj.learned.fit_tableau(
  model, uniform(20), 5, jax.random.key(1), (2,),
  num_train=size, num_valid=size, num_steps=10 if SMOKE else 100,
)  # fmt: skip
print("error of the best hand-made:", report["hand_made"])
print("error of the learned one:   ", report["learned"])
assert report["learned"] <= report["hand_made"]

# %% [markdown]
# ## Yours to change
#
# - `model`: any `predict(z, lv, cond) -> (x̂, ε̂)`; a network by `dfj.predictor`, a
#   function by `dfj.predictor_of`.
# - a Runge-Kutta method of your own: `dfj.solvers.runge_kutta(grid, a, b)`.
# - a trained run: `dfj.load("runs/digits").sample(solver="unipc", num_steps=8)`.
