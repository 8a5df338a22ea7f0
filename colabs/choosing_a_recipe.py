# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Choosing a recipe
#
# A recipe is five independent choices: target, weighting, density, schedule, scale. On
# handwritten digits each is changed alone: what provably stays the same is *asserted*,
# what changes is drawn. About 2 minutes on a CPU of two cores, for seven small trainings.
# You should see losses that agree to the last digits, errors that move from one end of
# log-SNR to the other, and digits.

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
flow, v_cosine = dfj.objectives.flow_matching(), dfj.objectives.v_diffusion()
both = dfj.compare(flow, v_cosine)
print(both)

# %% [markdown]
# Two papers, one weighting: but for a constant, which is a learning rate, they minimise
# the same. The rest differs, and only some of it matters: that is what follows. As a
# picture, which `python -m diffflow_jax.compare --configs=flow_matching,v_diffusion
# --out=two.png` draws from a shell:

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

SMOKE = bool(os.environ.get("DIFFFLOW_SMOKE"))
assert both.shared() == ["weighting"]
dfj.plots.plot_comparison(both)

# %% [markdown]
# ## What does not change
#
# Take any denoiser, here a bad one: a Gaussian as wide as the digits. Written as any
# output, on any scale, its loss under one weighting is the same number.

# %%
digits = {
  name: jnp.array(d.to_float(d.x).reshape(-1, 64))
  for name in ("train", "test")
  for d in [dfj.data.digits(name)]
}
x, key = digits["train"], jax.random.key(0)
sd3, edm = dfj.objectives.sd3(), dfj.objectives.edm()
gaussian = dfj.closed_form.gaussian(x.mean(0), float(x.std()))


def as_network(objective):
  def apply(params, z, logsnr, cond):
    lv = dfj.levels.at_logsnr(objective.scale, logsnr, objective.schedule)
    return dfj.targets.from_x_eps(objective.target, *gaussian(z, lv), lv)

  return apply


def loss(objective, key=key):
  terms = dfj.weighted_mse(objective, as_network(objective), {}, key, x)
  return terms.loss.mean()


outputs = {
  "eps": dfj.targets.eps, "v": dfj.targets.v, "x": dfj.targets.x,
  "F": dfj.targets.F(0.5),
}  # fmt: skip
scales = {
  "flow matching's scale": dfj.levels.linear,
  "variance preserving": dfj.levels.vp,
  "EDM's": dfj.levels.Unit(0.5),
}
if SMOKE:
  outputs, scales = (dict(list(d.items())[:2]) for d in (outputs, scales))
first = float(loss(sd3))
for scale_name, scale in scales.items():
  found = [
    float(loss(sd3.replace(target=target, scale=scale)))
    for target in outputs.values()
  ]
  print(
    f"{scale_name:22}",
    dict(zip(outputs, np.round(found, 6).tolist(), strict=True)),
  )
  assert np.allclose(found, first, rtol=1e-5), found

# %% [markdown]
# The schedule is not even read: where a density says which levels are drawn, another
# schedule gives the same loss to the last bit. It is the clock of *sampling*.

# %%
others = (dfj.schedules.Cosine(), dfj.schedules.VPLinear())
same = [float(loss(sd3.replace(schedule=s))) for s in (*others, sd3.schedule)]
print("three schedules, one loss:", same)
assert len(set(same)) == 1

# %% [markdown]
# The density moves the spread of the loss and not its mean, since the loss divides by
# it. Below, the mean over batches agrees within four standard errors, and a good
# density needs a fraction of the examples for the same error.

# %%
densities = {
  "SD3's own": sd3.density,
  "EDM's": edm.density,
  "wide": dfj.densities.Normal(0.0, 6.0),
}
keys = jax.random.split(key, 20 if SMOKE else 200)
means, errors = [], []
batches = jax.jit(lambda objective: jax.lax.map(
  lambda key: loss(objective, key), keys
))  # fmt: skip
for name, density in densities.items():
  values = np.asarray(batches(sd3.replace(density=density)))
  means.append(values.mean())
  errors.append(values.std() / len(values) ** 0.5)
  print(f"{name:10} loss {means[-1]:.4f} ± {errors[-1]:.4f}")
apart = np.abs(np.subtract.outer(means, means))
assert (apart < 4 * np.hypot.outer(errors, errors) + 1e-6).all()


# %% [markdown]
# ## What changes: the target
#
# The same minimum, and another way for a network to miss it: an error of its output is
# an error of ε̂ that is alpha/D times as large, D = alpha b - sigma a. A network of `x`
# is amplified without bound at clean levels, one of `eps` (its x̂) at noisy ones.

# %%
net = dfj.networks.MLP() if not SMOKE else dfj.networks.MLP(width=8, depth=1)
steps, batch = (4, 16) if SMOKE else (3000, 128)
tx = optax.adam(optax.cosine_decay_schedule(2e-3, steps))


@jax.jit
def fit(objective):
  """(objective, params) after training; a density that follows the loss moves."""

  def step(carry, key):
    objective, params, state = carry
    rows = jax.random.randint(jax.random.fold_in(key, 1), (batch,), 0, len(x))

    def of(params):
      terms = dfj.weighted_mse(objective, net.apply, params, key, x[rows])
      return terms.loss.mean(), terms

    gradient, terms = jax.grad(of, has_aux=True)(params)
    updates, state = tx.update(gradient, state)
    if hasattr(objective.density, "update"):
      density = objective.density.update(terms)
      objective = objective.replace(density=density)
    return (objective, optax.apply_updates(params, updates), state), None

  params = net.init(key, x[:1], jnp.zeros(1))
  carry = (objective, params, tx.init(params))
  carry, _ = jax.lax.scan(step, carry, jax.random.split(key, steps))
  return carry[:2]


logsnr = jnp.linspace(-9.0, 9.0, 10)
held_out = digits["test"]
eps = jax.random.normal(jax.random.key(2), held_out.shape)


@jax.jit
def errors_by_level(objective, params):
  """Mean of ‖eps - ε̂‖² on digits that were not trained on, (10,)."""

  def at(logsnr):
    level = jnp.full(len(eps), logsnr)
    terms = dfj.terms_at(objective, net.apply, params, held_out, level, eps)
    return terms.eps_mse.mean()

  return jax.lax.map(at, logsnr)


even = dfj.densities.uniform(-12.0, 12.0)
base = sd3.replace(
  density=even, weighting=dfj.weightings.Sigmoid(0.0), scale=dfj.levels.vp
)
by_target = {}
for name, target in outputs.items():
  by_target[name] = errors_by_level(*fit(base.replace(target=target)))


if not SMOKE:
  eps_net, x_net = by_target["eps"], by_target["x"]
  assert x_net[-1] > 1.5 * eps_net[-1] and eps_net[0] > 1.5 * x_net[0]


def draw(curves, beside):
  plt.figure(figsize=(6, 3.2))
  for name, error in curves.items():
    plt.semilogy(logsnr, error / curves[beside], label=name)
  plt.xlabel("log-SNR")
  plt.ylabel(f"error of ε̂, beside {beside}'s")
  plt.legend()
  plt.show()


draw(by_target, "eps")

# %% [markdown]
# ## What changes: the weighting
#
# It says where a network of limited size shall be good. `Sigmoid(bias)` counts the
# levels below its bias; the bias is a number in the recipe, so another one trains by
# the same compiled program. An exact denoiser would be the same under any of them.

# %%
by_weighting = {"bias 0": by_target["v"]}
for bias in (-4.0, 4.0):
  weighting = dfj.weightings.Sigmoid(bias)
  trained = fit(base.replace(target=dfj.targets.v, weighting=weighting))
  by_weighting[f"bias {bias:g}"] = errors_by_level(*trained)
draw(by_weighting, "bias -4")
low, high = by_weighting["bias -4"], by_weighting["bias 4"]
assert SMOKE or (low[0] < high[0] and high[-1] < low[-1])

# %% [markdown]
# ## A density that follows the loss
#
# `Adaptive` draws where the weighted loss is: it moves while the network trains, and
# the loss, which divides by it, keeps its mean while its spread falls.

# %%
adaptive = dfj.densities.adaptive(40, -12.0, 12.0)
recipe = base.replace(target=dfj.targets.v, density=adaptive)
learned, params = fit(recipe)


@jax.jit
def spread(objective):
  one = lambda key: (
    dfj.weighted_mse(objective, net.apply, params, key, held_out).loss
  )  # of single examples
  losses = jax.lax.map(one, keys[:20])
  return losses.mean(), losses.std() / losses.size**0.5, losses.std()


# an adaptive density begins even
found = {"even": spread(recipe), "adaptive": spread(learned)}
for name, (mean, error, std) in found.items():
  print(
    f"{name:9} loss {mean:.4f} ± {error:.4f}, one example's spread {std:.4f}"
  )
(mean_a, error_a, std_a), (mean_b, error_b, std_b) = found.values()
assert abs(mean_a - mean_b) < 5 * np.hypot(error_a, error_b)
assert SMOKE or std_b < 0.8 * std_a

at = jnp.linspace(-11.9, 11.9, 200)
plt.figure(figsize=(6, 2.6))
for name, density in (("at first", adaptive), ("at the end", learned.density)):
  plt.plot(at, jnp.exp(density.log_prob(at)), label=name)
plt.xlabel("log-SNR")
plt.ylabel("density of the draws")
plt.legend()
plt.show()

# %% [markdown]
# ## A network is not bound to its scale or schedule
#
# Drawn on another scale, a sample is the same: z is rescaled on its way into the
# network. Another schedule's clock is another path over the same levels, and its
# samples approach those of the first as steps are added.

# %%
predict = dfj.predictor(learned, net.apply, params)
z = jax.random.normal(jax.random.key(3), (50, 64))


def drawn(grid):
  solver = dfj.solvers.dpmpp_2m(grid)
  return dfj.sample(predict, solver, z=grid.sigma[0] * z)


vp, linear = dfj.levels.vp, dfj.levels.linear
even_steps = lambda n, scale: dfj.grids.uniform_logsnr(-10.0, 10.0, n, scale)
cosine = dfj.schedules.Cosine()
ends = [float(cosine.t(end)) for end in (-10.0, 10.0)]
by_cosine = lambda n: dfj.grids.uniform_t(cosine, vp, n, *ends)

one, two = (drawn(even_steps(10, scale)) for scale in (vp, linear))
clean = [even_steps(10, scale).alpha[-1] for scale in (vp, linear)]
off = float(jnp.abs(one / clean[0] - two / clean[1]).max())
print(f"two scales, ten steps: {off:.0e} apart at most")
assert off < 1e-3

apart, few, many = {}, 10, 12 if SMOKE else 160
for n in (few, many):
  a, b = drawn(even_steps(n, vp)), drawn(by_cosine(n))
  apart[n] = float(jnp.abs(a - b).mean())
print("two clocks:", {n: f"{off:.3f}" for n, off in apart.items()}, "apart")
assert SMOKE or apart[many] < 0.2 * apart[few]

tiles = np.pad(np.asarray(a[:40]).reshape(40, 8, 8), ((0, 0), (1, 1), (1, 1)),
               constant_values=-1)  # fmt: skip
plt.figure(figsize=(5, 2))
plt.imshow(tiles.reshape(4, 10, 10, 10).swapaxes(1, 2).reshape(40, 100),
           cmap="gray", vmin=-1, vmax=1)  # fmt: skip
plt.axis("off")
plt.show()

# %% [markdown]
# ## What to take
#
# Output `v`, `u` or `F`, which are bad at no end; a weighting that says what matters
# to *you*; a density that follows it, `Adaptive` if you do not know which; and the
# schedule is for sampling, where it can still be changed.
#
# ## Yours to change
#
# - `base`: the weighting `dfj.weightings.elbo`, or `mse(recipe, dfj.targets.v)`.
# - `outputs`: a row of your own, any `lv -> (a, b)`.
# - `dfj.compare` of two recipes that you have met, by `dfj.objectives.make(name)`.
# - the same in a run: `--config.objective.target=x`, `.weighting=sigmoid:bias=2`,
#   `.density=adaptive`, `.schedule=cosine`.
