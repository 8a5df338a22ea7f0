# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Inverse problems
#
# A model of x, and a measurement y of a part of it: draw x given y. `Replaced` puts
# known values into every prediction, `Measured` follows the gradient of the
# measurement's likelihood. Both are tried where the exact posterior is known, on
# Gaussians, a mixture, and real digits as a finite law. Under a minute on a CPU; nothing
# is trained. You should see where each is exact, and how far off it is elsewhere.

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
from scipy import special

SMOKE = bool(os.environ.get("DIFFFLOW_SMOKE"))
key = jax.random.key(0)
grid = lambda n: dfj.grids.uniform_t(dfj.schedules.Flow(), dfj.levels.linear, n)
law = dfj.closed_form.mixture([0.5, 0.5], [[-1, -1], [1, 1]], [0.4, 0.4])
known, mask = jnp.array([0.8, 0.0]), jnp.array([1.0, 0.0])
inpaint = dfj.guidance.Replaced(law, known, mask)
x = dfj.sample(inpaint, dfj.solvers.heun(grid(20)), key, (4, 2))
print(x)  # the first coordinate is 0.8

# %% [markdown]
# ## A Gaussian: exact
#
# With y = A x + noise and A Aᵀ = 1 (here the average of two coordinates, in an
# orthonormal basis), the posterior of an isotropic Gaussian is a Gaussian, and
# `Measured` samples it: mean and covariance agree within the error of the draws and
# of the solver.

# %%
num, steps = (2000, 24) if SMOKE else (20000, 64)
mean, std, noise = np.array([0.5, -0.3, 0.2]), 0.8, 0.3
row = np.array([1, 1, 0]) / np.sqrt(2)
average = lambda x: x @ jnp.array(row)[:, None]
y = 1.2
gauss = dfj.closed_form.gaussian(mean, std)
model = dfj.guidance.Measured(
  gauss, y=jnp.full((num, 1), y), noise_std=noise, data_std=std, forward=average
)
x = np.asarray(dfj.sample(model, dfj.solvers.heun(grid(steps)), key, (num, 3)))
gain = std**2 / (std**2 + noise**2)
want_mean = mean + gain * (y - row @ mean) * row
want_cov = std**2 * (np.eye(3) - gain * np.outer(row, row))
print("mean:      ", x.mean(0).round(3), "exact", want_mean.round(3))
print("along A:   ", (x @ row).std().round(3), "exact",
      np.sqrt(row @ want_cov @ row).round(3))  # fmt: skip
error = 4 * std / np.sqrt(num)
assert np.abs(x.mean(0) - want_mean).max() < error + 0.005
assert np.abs(np.cov(x.T) - want_cov).max() < 2 * std * error + 0.005

# %% [markdown]
# ## A mixture: the modes, weighed wrongly
#
# One coordinate is known, the other is drawn. The posterior is a mixture in one
# dimension. Replacing never asks how likely the known value was under a mode, until
# the noise is low: the weights come out wrong, and noise on the way does not mend
# them. The number is the distance to the exact posterior. `Measured` does ask, with a Gaussian in
# the place of p(x | z), which is an approximation: better, not exact.

# %%
num, steps = (1000, 20) if SMOKE else (5000, 50)
known_x, small = 0.15, 0.1
law = dfj.closed_form.mixture(
  [0.4, 0.6], [[-0.5, -1.2], [0.6, 0.9]], [0.35, 0.35]
)
means, stds = np.asarray(law.means), np.asarray(law.stds)
var = stds**2 + small**2
weight = np.exp(law.log_weights) * np.exp(
  -0.5 * (known_x - means[:, 0]) ** 2 / var
) / np.sqrt(var)  # fmt: skip
weight /= weight.sum()
at = np.linspace(-3, 3, 601)
cdf = special.ndtr((at[:, None] - means[:, 1]) / stds) @ weight
density = np.gradient(cdf, at)

held = lambda x: dfj.guidance.Replaced(law, jnp.array([x, 0.0]), mask)
y = jnp.full((num, 1), known_x)
first = lambda x: x[:, :1]
measured = dfj.guidance.Measured(
  law, y=y, noise_std=small, data_std=0.6, forward=first
)
way = grid(steps)
tries = {
  "Replaced, DDIM": (held(known_x), dfj.solvers.ddim(way)),
  "Replaced, with noise": (held(known_x), dfj.solvers.ddpm(way)),
  "Measured": (measured, dfj.solvers.sde_dpmpp_2m(way)),
}
fig, axes = plt.subplots(1, 3, figsize=(9, 2.4), sharey=True)
distance = {}
for ax, (name, (model, table)) in zip(axes, tries.items(), strict=True):
  hidden = np.sort(np.asarray(dfj.sample(model, table, key, (num, 2)))[:, 1])
  ours = np.searchsorted(hidden, at) / num
  distance[name] = np.trapezoid(np.abs(ours - cdf), at)  # Wasserstein's
  ax.hist(hidden, 40, range=(-3, 3), density=True, alpha=0.6)
  ax.plot(at, density, "k", lw=1)
  ax.set_title(f"{name}: {distance[name]:.2f}", fontsize=9)
plt.show()
floor = 4 * 1.2 / np.sqrt(num)  # what as many exact draws could be off
print(f"draws of the exact posterior: up to {floor:.2f}")
ours = distance.pop("Measured")
assert ours < min(distance.values())

# %% [markdown]
# ## Digits, enlarged
#
# Real digits as a finite law: the denoiser is exact, and so is the posterior,
# p(digit | y) ∝ N(y; A digit, noise²). A is the average of 2x2 pixels, times 2 so that
# A Aᵀ = 1: sixteen numbers of sixty-four. The picture that is measured is not in the
# law, so nothing is copied.

# %%
digits = dfj.data.digits()
pixels = np.asarray(
  digits.to_float(digits.take(np.arange(len(digits)))["x"])
).reshape(-1, 64)
truth, points = pixels[:6], jnp.array(pixels[6:])
pile = dfj.closed_form.dataset(points)


def shrink(x):
  return x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) * 2


def enlarge(y):
  return np.kron(np.asarray(y).reshape(-1, 4, 4) / 2, np.ones((2, 2)))


noise = 0.3
eye = jnp.eye(16)
assert jnp.abs(shrink(shrink(jnp.eye(64)).T).T - eye).max() < 1e-5  # A Aᵀ
y = shrink(truth) + noise * np.random.default_rng(0).normal(size=(6, 16))
far = ((y[:, None] - np.asarray(shrink(points))) ** 2).sum(-1)
posterior = np.exp(-0.5 * (far - far.min(1, keepdims=True)) / noise**2)
posterior /= posterior.sum(1, keepdims=True)
exact_mean = posterior @ np.asarray(points)

each = 4 if SMOKE else 16
model = dfj.guidance.Measured(
  pile, y=jnp.repeat(jnp.array(y, jnp.float32), each, 0), noise_std=noise,
  data_std=0.3, forward=shrink,
)  # fmt: skip
table = dfj.solvers.heun(grid(20 if SMOKE else 40))
drawn = np.asarray(dfj.sample(model, table, key, (6 * each, 64)))
drawn = drawn.reshape(6, each, 64)

rows = {
  "truth": truth, "measured": enlarge(y), "a sample": drawn[:, 0],
  "another": drawn[:, 1], "mean of samples": drawn.mean(1),
  "exact mean": exact_mean,
}  # fmt: skip
fig, axes = plt.subplots(len(rows), 1, figsize=(4, 4.4))
for ax, (name, picture) in zip(axes, rows.items(), strict=True):
  ax.imshow(np.hstack(np.reshape(picture, (6, 8, 8))), "gray", vmin=-1, vmax=1)
  ax.set_yticks([])
  ax.set_xticks([])
  ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
plt.show()

# %% [markdown]
# Beside the exact posterior: no guess is nearer to the truth than its mean, on
# average, and a draw of it is farther. The samples come close to that, with a width of
# p(x | z) that was tried out, `data_std=0.3`: at the 0.75 of the pixels they listen
# too little to y, and are as far off as the enlarged picture.

# %%
rms = lambda a, b: float(np.sqrt(np.mean((a - b) ** 2)))
rng = np.random.default_rng(1)
exact_draws = np.stack([np.asarray(points)[rng.choice(len(p), 64, p=p)]
                        for p in posterior])  # fmt: skip
to_truth = {
  "the exact mean": rms(exact_mean, truth),
  "an exact draw": rms(exact_draws, truth[:, None]),
  "a sample": rms(drawn, truth[:, None]),
  "the measurement, enlarged": rms(enlarge(y).reshape(6, 64), truth),
}
print("distance to the truth:")
for name, value in to_truth.items():
  print(f"  {name:26} {value:.2f}")
print(
  f"mean of samples to the exact mean: {rms(drawn.mean(1), exact_mean):.2f}"
)
assert to_truth["the exact mean"] < to_truth["a sample"]
if not SMOKE:  # which has too few steps
  assert to_truth["a sample"] < to_truth["the measurement, enlarged"]

# %% [markdown]
# ## Yours to change
#
# - `shrink`: another linear measurement, a blur, a mask; `data_std` scales the guess
#   of how wide p(x | z) is, which is what `Measured` approximates.
# - `noise`: at 0.01 the posterior is one digit, at 2 it is all of them.
# - a trained model: `dfj.load("runs/digits").predict` in the place of `pile`, with x
#   of shape (batch, 8, 8, 1).
