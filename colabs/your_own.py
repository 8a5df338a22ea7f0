# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own
#
# Data, conditions, network (linen and nnx), schedule, target, weighting, density and
# solver, each in five to ten lines, put together to one recipe that draws waves of a
# pitch and a direction that are asked for. About a minute on a CPU. You should see
# waves that rise from left to right where they were asked to.

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

from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

SMOKE = bool(os.environ.get("DIFFFLOW_SMOKE"))
steps = 20 if SMOKE else 3000

# %% [markdown]
# ## Data and conditions
#
# `Arrays` holds what fits in memory: uint8 means 0 to 255, labels are a class, and
# what else is known of an example is `given` by a name. Here a wave has a direction
# (its label) and a pitch, waves per picture, from -1 to 1 for 0.5 to 2.5.

# %%
rng = np.random.default_rng(0)


def waves(direction, pitch):
  at = np.arange(8) / 8 * (1.5 + pitch[:, None]) + rng.random((len(pitch), 1))
  row = 127.5 * (1 + np.sin(2 * np.pi * at))[:, None, :]
  x = np.broadcast_to(row, (len(pitch), 8, 8))
  return np.where(direction[:, None, None] == 0, x, x.swapaxes(1, 2))


direction = rng.integers(0, 2, 4096)
pitch = rng.uniform(-1, 1, 4096).astype(np.float32)
x = waves(direction, pitch).astype(np.uint8)[..., None]
data = dfj.data.Arrays(
  x, direction, class_names=("across", "down"), given={"pitch": pitch[:, None]}
)
print(dfj.inspect(data))

# %% [markdown]
# ## A network
#
# Any `apply(params, z, logsnr, cond)`. With more than labels, `cond` is a dict; the
# label `num_classes` means "not said", and so does a mask that is False.
# `logsnr_features` is bounded at both ends, where logsnr is infinite.


# %%
class Mixer(nn.Module):
  width: int = 256

  @nn.compact
  def __call__(self, z, logsnr, cond):
    pitch = cond["pitch"]
    said = jnp.hstack([pitch.value, pitch.mask[:, None]])
    told = nn.Dense(self.width)(dfj.networks.logsnr_features(logsnr, 32))
    told += nn.Dense(self.width)(said) + nn.Embed(3, self.width)(cond["label"])
    told, h = nn.gelu(told), nn.Dense(self.width)(z.reshape(len(z), -1))
    for _ in range(3):
      y = nn.Dense(self.width)(nn.LayerNorm()(h)) * nn.Dense(self.width)(told)
      h += nn.Dense(self.width)(nn.gelu(y))
    return nn.Dense(z[0].size)(h).reshape(z.shape)


# %% [markdown]
# Much the same in nnx. `from_nnx` gives it the `init` and `apply` of linen.


# %%
class NnxMixer(nnx.Module):
  def __init__(self, width, *, rngs):
    dense = lambda d, out=width: nnx.Linear(d, out, rngs=rngs)
    self.level, self.said, self.z = dense(32), dense(2), dense(64)
    self.label = nnx.Embed(3, width, rngs=rngs)
    self.inner, self.gain, self.outer = (
      nnx.List([dense(width) for _ in range(3)]) for _ in range(3)
    )
    self.out = dense(width, 64)

  def __call__(self, z, logsnr, cond):
    pitch = cond["pitch"]
    said = jnp.hstack([pitch.value, pitch.mask[:, None]])
    told = self.level(dfj.networks.logsnr_features(logsnr, 32))
    told = nnx.gelu(told + self.said(said) + self.label(cond["label"]))
    h = self.z(z.reshape(len(z), -1))
    blocks = zip(self.inner, self.gain, self.outer, strict=True)
    for inner, gain, outer in blocks:
      h += outer(nnx.gelu(inner(h) * gain(told)))
    return self.out(h).reshape(z.shape)


networks = {
  "linen": Mixer(),
  "nnx": dfj.networks.from_nnx(NnxMixer, width=128),
}

# %% [markdown]
# ## A schedule
#
# A class with `logsnr(t)`, or with `pair(t)`, two numbers proportional to (alpha,
# sigma), and t = 0 at the data. The inverse and the derivatives follow, and `check`
# says what is wrong with it.


# %%
@dfj.schedules.schedule
class Quadratic:
  top: float = 10.0

  def logsnr(self, t):
    return self.top * (1 - 2 * t**2)


schedule = dfj.schedules.check(Quadratic(top=9.0))
print("t of logsnr 0:", float(schedule.t(0.0)), "= sqrt(1/2)")
assert abs(schedule.t(0.0) - 0.5**0.5) < 1e-5

# %% [markdown]
# ## Target, weighting, density
#
# What the network is asked for (a row: `a x + b eps`), what is minimised (log w over
# log-SNR, which is 0 for the likelihood), and where levels are drawn (a quantile
# function and its log density: here a Laplace law).


# %%
def lopsided(lv):  # 0.5 x - eps, at every level
  return 0.5 * jnp.ones_like(lv.alpha), -jnp.ones_like(lv.alpha)


def midtones(logsnr):
  return -0.5 * (logsnr / 3.0) ** 2


class Laplace:
  def logsnr(self, u):
    return -2.0 * jnp.sign(u - 0.5) * jnp.log(1 - 2 * jnp.abs(u - 0.5))

  def log_prob(self, logsnr):
    return -jnp.abs(logsnr) / 2.0 - jnp.log(4.0)


# %% [markdown]
# Is it a density, and the one that is drawn from? Both of its parts are yours, so look:
# it has a mass of 1, and u of the mass is below its quantile of u.

# %%
logsnr = np.linspace(-40, 40, 80001)
below = np.cumsum(np.exp(Laplace().log_prob(logsnr))) * (logsnr[1] - logsnr[0])
u = np.linspace(0.01, 0.99, 99)
quantiles = np.sort(np.asarray(Laplace().logsnr(jnp.array(u))))
assert abs(below[-1] - 1) < 1e-3
assert np.abs(np.interp(quantiles, logsnr, below) - u).max() < 2e-3

# %% [markdown]
# ## One recipe
#
# They go into any recipe, and what is not named stays as it is. `compare` says what
# has changed.

# %%
base = dfj.objectives.flow_matching()
objective = dfj.objectives.on_schedule(base, schedule).replace(
  weighting=midtones, target=lopsided, density=Laplace()
)
print(dfj.compare(base, objective, names=("flow matching", "mine")))

# %% [markdown]
# ## Your own loop
#
# `make_train_step` is a pure function of (state, batch); what an example says is left
# out of a tenth of the batch, so that it can be guided. Or no trainer at all, but
# `dfj.weighted_mse` as in the notebook `first_model`.

# %%
tx = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
average = lambda step: jnp.minimum(0.99, step / (step + 10.0))
states = {}
for name, net in networks.items():
  num = steps if name == "linen" else steps // 10  # to see that it learns
  state = dfj.train_state(objective, net, tx, data, (average,), seed=0)
  step = dfj.make_train_step(
    objective, net.apply, tx, data, (average,), seed=0, label_dropout=0.1,
    dropout={"pitch": 0.1},
  )  # fmt: skip
  step, losses = jax.jit(dfj.with_loss(step), donate_argnums=0), []
  for i in range(num):
    state, loss = step(state, data.batch(seed=0, step=i, size=128))
    losses.append(loss)
  states[name] = state
  first, last = np.mean(losses[:5]), np.mean(losses[-5:])
  print(f"{name}: loss {first:.3f} -> {last:.3f} after {num} steps")
  assert SMOKE or last < first

# %% [markdown]
# ## A solver
#
# A function from a grid to a table. Row i + 1 of `mix` makes the next anchor and the
# next z, two rows, from (anchor, z, K kept predictions, noise), K + 3 columns; the first
# hands on the noise. `help(dfj.Tableau)` has all of it. This one is DDIM whose
# x̂ is extrapolated by half a step, from the two last predictions: on equal steps of
# log-SNR that is DPM-Solver++(2M).


# %%
def extrapolated(grid):
  n = grid.alpha.shape[0] - 1
  mix = np.zeros((n + 1, 2, 5))  # K = 2
  mix[0, :, 1] = 1.0
  for i in range(n):
    keep = grid.sigma[i + 1] / grid.sigma[i]
    gain = grid.alpha[i + 1] - keep * grid.alpha[i]
    half = 0.5 if i > 0 else 0.0
    mix[i + 1] = [0, keep, (1 + half) * gain, -half * gain, 0]
  x_hat = np.tile([1.0, 0.0], (n, 1))  # what is kept: 1 x̂ + 0 ε̂
  return dfj.Tableau(mix, x_hat, grid[:-1], grid[0], grid[-1])


law = dfj.closed_form.mixture([0.4, 0.6], [[-1, 0], [1, 1]], [0.3, 0.5])
grid = dfj.grids.uniform_logsnr(-8.0, 8.0, 12)
z = jax.random.normal(jax.random.key(0), (500, 2))
mine = dfj.sample(law, extrapolated(grid), z=z)
known = dfj.sample(law, dfj.solvers.dpmpp_2m(grid), z=z)
print("mine and DPM-Solver++(2M):", float(jnp.abs(mine - known).max()), "apart")
assert jnp.abs(mine - known).max() < 1e-4

# %% [markdown]
# A Runge-Kutta method is its Butcher table. Heun's method of order three, whose error
# over twice the steps must fall by about 2³:


# %%
def heun_3(grid):
  a = [[], [1 / 3], [0, 2 / 3]]
  return dfj.solvers.runge_kutta(grid, a, [1 / 4, 0, 3 / 4])


jax.config.update("jax_enable_x64", True)
flow = lambda n: dfj.grids.uniform_t(dfj.schedules.Flow(), dfj.levels.linear, n)
wide = dfj.closed_form.gaussian([0.5, -0.5], 0.8)  # its flow is known
z = jax.random.normal(jax.random.key(0), (100, 2), "float64")
exact = wide.flow(z, flow(1)[0], flow(1)[-1])
off = lambda n: jnp.abs(dfj.sample(wide, heun_3(flow(n)), z=z) - exact).max()
order = float(jnp.log2(off(16) / off(32)))
print("order:", round(order, 2))
assert abs(order - 3) < 0.2
jax.config.update("jax_enable_x64", False)

# %% [markdown]
# ## All of it together
#
# The recipe's network, by your solver, asked for a direction and a pitch: `cond` is
# what the network was told in training.

# %%
asked = np.linspace(-0.8, 0.8, 8)
num = 8 * 8
said = dfj.conditions.Given(
  jnp.array(np.tile(asked, 8)[:, None], jnp.float32), jnp.ones(num, bool)
)
cond = {"label": jnp.array(np.repeat([0, 1], num // 2)), "pitch": said}
average_params = states["linen"].ema[0]
predict = dfj.predictor(objective, networks["linen"].apply, average_params)
grid = dfj.grids.uniform_logsnr(-8.0, 8.0, 30, objective.scale)
drawn = dfj.sample(
  predict, extrapolated(grid), jax.random.key(1), (num, 8, 8, 1), cond=cond
)
fig, axes = plt.subplots(1, 2, figsize=(7, 2.2))
for ax, i, name in zip(axes, (0, 4), data.class_names, strict=True):
  rows = np.asarray(drawn).reshape(8, 8, 8, 8)[i : i + 3]
  ax.imshow(rows.swapaxes(1, 2).reshape(24, 64), "gray", vmin=-1, vmax=1)
  ax.set_title(f"{name}, pitch {asked[0]} to {asked[-1]}", fontsize=9)
  ax.set_axis_off()
plt.show()

# %% [markdown]
# Do they do what they were asked? Direction: where a picture changes. Pitch: the wave
# that fits a row best.


# %%
def measured(x):
  rough = lambda axis: np.abs(np.diff(x, axis=axis)).mean((1, 2))
  across = rough(2) > rough(1)
  row = np.where(across[:, None], x.mean(1), x.mean(2))
  pitches = np.linspace(-1.2, 1.2, 97)
  at = 2 * np.pi * np.arange(8) / 8 * (1.5 + pitches[:, None])
  fits = []
  for angle in at:
    basis = np.linalg.qr(np.stack([np.sin(angle), np.cos(angle)], 1))[0]
    fits.append(((row @ basis) ** 2).sum(1))
  return np.where(across, 0, 1), pitches[np.argmax(fits, axis=0)]


seen, pitch_seen = measured(np.asarray(drawn)[..., 0])
right = np.mean(seen == cond["label"])
miss = np.abs(pitch_seen - said.value[:, 0]).mean()
print(f"direction right: {right:.0%}; pitch is off by {miss:.2f} on average")
assert SMOKE or (right > 0.95 and miss < 0.15)  # by chance 50 % and 0.6

# %% [markdown]
# ## Yours to change
#
# - `Quadratic`, `midtones`, `Laplace`, `lopsided`, `extrapolated`: each alone.
# - guide by one condition: `dfj.Guided(predict, null={"label": 2}, strength=2.0)`.
# - a run by the commands: put them into `mine.py`, with `def dataset(): return data`
#   and two more fields of `Mixer`, `num_classes: int = 0` and `conditions: tuple = ()`,
#   which a run fills, and
#   `python -m diffflow_jax.train --config=diffflow_jax/digits --workdir=runs/mine
#   --config.dataset.name=mine:dataset --config.network.name=mine:Mixer`.
#   `--config.objective.name=mine:recipe` takes a function that returns your objective; a
#   solver of your own draws by `dfj.sample(run.predict, table, key, shape)`.
