# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first model
#
# Points in the plane, then real handwritten digits: train, look, guide, exchange the
# solver, and load the run again. About 4 minutes on a CPU of two cores, most of it the
# digits' training. You should see two moons, and digits that anyone can read.

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
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import sklearn.datasets

SMOKE = bool(os.environ.get("DIFFFLOW_SMOKE"))  # seconds, to see that it runs

# %% [markdown]
# ## Points in the plane
#
# One loss, `weighted_mse`, serves every recipe; here flow matching's. The network is
# called as `apply(params, z, logsnr, cond)`.

# %%
steps = 50 if SMOKE else 2000
x = jnp.array(sklearn.datasets.make_moons(1000, noise=0.05)[0])
objective, net = dfj.objectives.flow_matching(), dfj.networks.MLP()
tx = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
params = net.init(jax.random.key(0), x[:1], jnp.zeros(1))


@jax.jit
def step(params, state, key):
  loss = lambda p: dfj.weighted_mse(objective, net.apply, p, key, x).loss.mean()
  value, gradient = jax.value_and_grad(loss)(params)
  updates, state = tx.update(gradient, state)
  return optax.apply_updates(params, updates), state, value


state, losses = tx.init(params), []
for key in jax.random.split(jax.random.key(1), steps):
  params, state, value = step(params, state, key)
  losses.append(float(value))
print(f"loss {np.mean(losses[:20]):.2f} -> {np.mean(losses[-20:]):.2f}")

# %% [markdown]
# A solver is a function from a grid of noise levels to a table; `sample` runs it.

# %%
predict = dfj.predictor(objective, net.apply, params)
levels = dfj.grids.uniform_t(objective.schedule, objective.scale, 20)
table = dfj.solvers.dpmpp_2m(levels)
samples, way = dfj.sample(
  predict, table, key, (1000, 2), trajectory=lambda z, x_hat, eps_hat, lv: z
)
fig, axes = plt.subplots(1, 4, figsize=(12, 3), sharex=True, sharey=True)
for ax, i in zip(axes, (0, 8, 14, None), strict=True):
  points = samples if i is None else way[i]
  ax.scatter(*np.asarray(points).T, s=2)
  ax.set_title("samples" if i is None else f"before evaluation {i + 1}")
plt.show()

# %% [markdown]
# ## Digits
#
# A config says everything about a run: data, recipe, network, how it is sampled. The
# same config trains from a shell, `python -m diffflow_jax.train --config=…`, on one
# GPU or a pod. A run that is killed goes on when the cell is run again.

# %%
config = dfj.config("diffflow_jax/digits" + (":smoke" if SMOKE else ""))
if not SMOKE:
  config.num_steps = 400
  config.sample_every = config.checkpoint_every = 200
workdir = os.path.join(tempfile.gettempdir(), f"first_model_{config.num_steps}")
dfj.train(config, workdir)

# %% [markdown]
# ## Draw from it
#
# `load` gives the run as a thing: here, on another machine, or from a bucket.

# %%
run = dfj.load(workdir)
labels = np.tile(np.arange(10), 4)
samples = run.sample(labels=labels, solver="dpmpp_2m", num_steps=10)
apart = np.pad(np.asarray(samples)[..., 0], ((0, 0), (1, 1), (1, 1)), "minimum")
plt.figure(figsize=(7, 3))
plt.imshow(
  apart.reshape(4, 10, 10, 10).swapaxes(1, 2).reshape(40, 100), cmap="gray"
)
plt.axis("off")
plt.show()

# %% [markdown]
# ## Guidance, and other solvers
#
# Guidance moves samples towards what their label makes typical: at 3 they are alike.
# Another solver, grid or number of steps is new data and not a new network.

# %%
choices = {
  "no guidance": dict(guidance=1.0),
  "guidance 3": dict(guidance=3.0),
  "4 steps of unipc": dict(solver="unipc", num_steps=4),
  "50 noisy steps": dict(solver="ddim:eta=1", num_steps=50),
}
sevens = np.full(12, 7)
fig, axes = plt.subplots(len(choices), 1, figsize=(7, 3.4))
for ax, (name, how) in zip(axes, choices.items(), strict=True):
  drawn = run.sample(labels=sevens, **how)
  ax.imshow(np.hstack(np.asarray(drawn)[..., 0]), cmap="gray")
  ax.set_title(name, fontsize=9)
  ax.set_axis_off()
plt.show()

# %% [markdown]
# ## How good is it?
#
# A Fréchet distance to the real digits (in pixels), beside that of two halves of the
# real ones, which is the floor.

# %%
real = dfj.data.digits()
real_x = np.asarray(real.to_float(real.batch(0, 0, 1000)["x"])).reshape(
  1000, -1
)
num = 100 if SMOKE else 500
drawn = np.asarray(run.sample(num)).reshape(num, -1)
ours = dfj.evaluation.frechet(drawn, real_x).unbiased
floor = dfj.evaluation.frechet(real_x[:500], real_x[500:]).unbiased
print("samples:", ours)
print("halves of the real ones:", floor)

# %% [markdown]
# ## Yours to change
#
# - `config.objective.name = "edm"` (or `sd3`, `v_diffusion`, …): another recipe, in
#   another `workdir`, as a run keeps to its config.
# - `config.num_steps` and `config.network.channels`: longer, and a larger model.
# - your own data: the notebook `your_own`.
