# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Few steps
#
# One model in the plane, made into students of one, two and four steps in four ways:
# reflow, consistency distillation, MeanFlow and shortcuts, each by one loss in a loop
# of one's own. About a minute on a CPU. You should see the teacher fall apart in one
# step, and the students keep the shape of the law; but MeanFlow, which learns from
# data alone and by a derivative, is a blurred ring after so few training steps.

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
import functools
import os
import warnings

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

SMOKE = bool(os.environ.get("DIFFFLOW_SMOKE"))
steps, num = (20, 200) if SMOKE else (800, 1000)
objective, maps = dfj.objectives.flow_matching(), dfj.flow_maps
angle = np.arange(5) * 2 * np.pi / 5
teacher = dfj.closed_form.mixture(
  np.ones(5), 1.2 * np.stack([np.cos(angle), np.sin(angle)], 1), 0.2
)
grid = lambda n: dfj.grids.uniform_t(objective.schedule, objective.scale, n)
key = jax.random.key(4)
z = jax.random.normal(jax.random.key(0), (num, 2))

# %% [markdown]
# ## The teacher
#
# Here a mixture's exact denoiser, so that nothing but the distillation is judged; a
# trained run's `dfj.load(...).predict` would do as well. In 100 steps it draws the law;
# in one, everything becomes the mean.

# %%
fine = dfj.sample(teacher, dfj.solvers.heun(grid(100)), z=z)
counts = (1, 2, 4)
drawn = {
  "teacher": [
    dfj.sample(teacher, dfj.solvers.ddim(grid(n)), z=z) for n in counts
  ]
}
assert jnp.std(drawn["teacher"][0]) < 1e-3

# %% [markdown]
# A *flow map* is a prediction of a whole step: it is told where it goes. The exact one
# lands in the same point in one step, two or four, and that is what is learned.

# %%
exact = dfj.closed_form.flow_map(teacher, num_steps=128)


def in_few(predict, solver, z):
  """Samples in 1, 2, 4 steps: padded to 4, tables are one program's data."""
  run = jax.jit(lambda table: dfj.sample(predict, table, key, z=z))
  return [run(dfj.pad(solver(grid(n)), 4, 1)) for n in counts]


few = in_few(exact, dfj.solvers.flow_map, z[:50])
apart = [float(jnp.abs(one - fine[:50]).max()) for one in few]
print("the exact map in 1, 2, 4 steps, beside 100 of the teacher:", apart)
assert max(apart) < 0.02

# %% [markdown]
# ## Four losses, one loop
#
# Each is `loss(objective, apply, params, key, x, ...)` with a network that is told `to`
# beside the level. Reflow learns the ordinary loss on pairs that the teacher solved;
# consistency distillation sends neighbours on a trajectory to the same place; MeanFlow
# and shortcuts need no teacher, only its data.

# %%
size = dict(width=32, depth=1) if SMOKE else dict(width=64, depth=2)
net = dfj.networks.MLP(**size, level="angle", destination=True)
apply = net.apply
first = jnp.zeros(1)
start = net.init(jax.random.key(1), z[:1], first, None, first)
eps = jax.random.normal(jax.random.key(2), (512 if SMOKE else 8000, 2))
pairs = dfj.sample(teacher, dfj.solvers.heun(grid(30)), z=eps)
near = functools.partial(maps.pairs.adjacent, num_levels=40)


def reflow(params, key, x):
  i = jax.random.randint(key, x.shape[:1], 0, len(eps))
  return maps.reflow(objective, apply, params, key, pairs[i], eps=eps[i])


losses = {
  "reflow": reflow,
  "consistency": lambda params, key, x: maps.consistency_distillation(
    objective, apply, params, key, x, teacher=teacher, levels=near
  ),
  "MeanFlow": lambda params, key, x: maps.mean_flow(
    objective, apply, params, key, x, share=0.5
  ),
  "shortcut": lambda params, key, x: maps.shortcut(
    objective, apply, params, key, x, share=0.25, finest=32
  ),
}


def train(loss):
  tx = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

  @jax.jit
  def step(carry, key):
    params, average, state = carry
    x = teacher.sample(key, 256)
    mean = lambda p: loss(p, key, x).loss.mean()
    updates, state = tx.update(jax.grad(mean)(params), state)
    params = optax.apply_updates(params, updates)
    return params, optax.incremental_update(params, average, 0.01), state

  carry = start, start, tx.init(start)
  for one in jax.random.split(jax.random.key(3), steps):
    carry = step(carry, one)
  return carry[1]


students = {name: train(loss) for name, loss in losses.items()}

# %% [markdown]
# ## One, two, four steps
#
# MeanFlow and shortcuts may go to any level: `flow_map`. Consistency always goes to
# the data, so that between steps the noise is renewed, `gamma=1`. Reflow made paths
# straighter and is sampled as before.

# %%
everywhere = functools.partial(
  dfj.predictor, objective, apply, destination=True
)
at_rest = lambda p, z, logsnr, cond: apply(p, z, logsnr, cond, logsnr)
for name, params in students.items():
  if name == "reflow":
    predict, solver = (
      dfj.predictor(objective, at_rest, params),
      dfj.solvers.ddim,
    )
  else:
    predict, solver = everywhere(params), dfj.solvers.flow_map
  if name == "consistency":
    solver = functools.partial(solver, gamma=1.0)
  drawn[name] = in_few(predict, solver, z)

real = np.asarray(teacher.sample(jax.random.key(5), num))
far = lambda x: dfj.evaluation.energy_distance(np.asarray(x), real)
with warnings.catch_warnings():  # one step of the teacher: all in one point
  warnings.simplefilter("ignore")
  table = {name: [far(x).value for x in each] for name, each in drawn.items()}
print(f"energy distance to the law; 100 steps of the teacher: {far(fine)}")
for name, each in table.items():
  print(f"{name:12}", *(f"{value:8.4f}" for value in each))
if not SMOKE:
  for name in students:
    assert table[name][0] < 0.25 * table["teacher"][0], name

fig, axes = plt.subplots(3, 5, figsize=(10, 6), sharex=True, sharey=True)
for column, (name, each) in zip(axes.T, drawn.items(), strict=True):
  for ax, x, n in zip(column, each, counts, strict=True):
    ax.scatter(*np.asarray(x[:1000]).T, s=2)
    ax.set_xlim(-2.2, 2.2)
    ax.set_ylim(-2.2, 2.2)
    ax.set_title(f"{name}, {n}", fontsize=9)
plt.show()

# %% [markdown]
# ## Do they follow the teacher?
#
# A map may draw the right law from other noise. From the *same* noise, how far from
# the teacher's 100 steps does one step end? Reflow keeps pairs only as far as its
# paths do not cross.

# %%
for name in drawn:
  miss = float(jnp.sqrt(jnp.mean((drawn[name][0] - fine) ** 2)))
  print(f"{name:12} one step, from the same noise: off by {miss:.3f}")
  assert SMOKE or name not in ("reflow", "consistency") or miss < 0.15

# %% [markdown]
# ## Yours to change
#
# - `steps`: ten times as many, for MeanFlow.
# - `losses`: `maps.lagrangian(..., teacher=teacher)`, `maps.progressive_distillation`,
#   `maps.improved_mean_flow`, each in the same loop.
# - `teacher`: two moons, or a trained run; guidance by `dfj.Guided` around it.
# - a run: `python -m diffflow_jax.distill --from=RUN --config=diffflow_jax/distill:scm`.
