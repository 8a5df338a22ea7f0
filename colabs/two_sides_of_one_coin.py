# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Two sides of one coin
#
# "Diffusion meets flow matching": each claim is recomputed here and *asserted*, on
# laws whose exact denoiser is known, so a failure would be the claim's and not a
# network's. About half a minute on a CPU; nothing is trained. At the end, change the law,
# the schedule or the solver, and run a cell again.

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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

jax.config.update("jax_enable_x64", True)  # so that "equal" can mean 1e-10
flow, cosine = dfj.schedules.Flow(), dfj.schedules.Cosine()
vp, linear = dfj.levels.vp, dfj.levels.linear
law = dfj.closed_form.mixture(
  [0.3, 0.4, 0.3], [[-1.5, -0.5], [0.2, 1.2], [1.3, -0.7]], [0.25, 0.35, 0.2]
)
key = jax.random.key(0)
noise = jax.random.normal(key, (300, 2))


def equal(a, b, tolerance=1e-10):
  error = float(jnp.abs(jnp.asarray(a) - jnp.asarray(b)).max())
  assert error < tolerance, error
  return f"equal: the largest difference is {error:.0e}"


# %% [markdown]
# ## 1. DDIM is Euler's method of flow matching
#
# DDIM, `z_t = alpha_t x̂ + sigma_t ε̂`, on flow matching's path is
# `z_t = z_s + (t - s) û` with `û = ε̂ - x̂`. Two names, one table of numbers.

# %%
grid = dfj.grids.uniform_t(flow, linear, 12)
ddim = dfj.sample(law, dfj.solvers.ddim(grid), z=noise)

z, t = noise, np.linspace(1, 0, 13)
for i in range(12):  # by hand
  x_hat, eps_hat = law(z, grid[i])
  z = z + (t[i + 1] - t[i]) * (eps_hat - x_hat)
print("DDIM and Euler by hand:", equal(ddim, z))

# %% [markdown]
# ## 2. DDIM does not care about the scale, Euler's method does
#
# Any `c(t) (alpha, sigma)` is the same level. On the family alpha^p + sigma^p = 1
# (p = 1 flow matching, p = 2 variance preserving) DDIM ends in the same points; Euler
# on the probability-flow ODE of each path does not.


# %%
def scale(p):
  def scaled(a, s):
    c = (a**p + s**p) ** (-1 / p)
    return c * a, c * s

  return scaled


ps, ends, euler = (1.0, 1.5, 2.0, 4.0), [], []
for p in ps:
  # t away from 1: the path of p > 1 has an infinite slope at pure noise
  levels = dfj.grids.uniform_t(flow, scale(p), 12, t_start=0.97)
  first = levels[0].sigma * noise
  ends.append(dfj.sample(law, dfj.solvers.ddim(levels), z=first))
  path = dfj.solvers.euler(levels, coordinate=(flow, scale(p)))
  euler.append(dfj.sample(law, path, z=first))
moved = [float(jnp.abs(e - euler[0]).max()) for e in euler]
print("DDIM on four scales:", equal(jnp.stack(ends), ends[0]))
print("Euler moves by", [f"{m:.2f}" for m in moved])
assert moved[0] < 1e-10 < 0.05 < min(moved[1:])

fig, axes = plt.subplots(1, 4, figsize=(13, 3.2), sharex=True, sharey=True)
for ax, p, a, b in zip(axes, ps, ends, euler, strict=True):
  ax.scatter(*np.asarray(a).T, s=4, label="DDIM")
  ax.scatter(*np.asarray(b).T, s=4, label="Euler", alpha=0.6)
  ax.set_title(f"p = {p:g}")
axes[0].legend()
plt.show()

# %% [markdown]
# ## 3. Straight or curved?
#
# "Flow matching's paths are straight" holds for narrow data: for a point, x̂ never
# moves. For data as wide as the noise it is the variance preserving path that is
# straight (it does not move at all). Below: how much longer the way is than the
# straight line, against the width of a Gaussian.


# %%
def straightness(width, scale, num=200):
  law_1d = dfj.closed_form.gaussian([2.0], width)
  levels = dfj.grids.uniform_t(flow, scale, num)
  z = jnp.linspace(-2, 2, 41)[:, None]
  way = [law_1d.flow(z, levels[0], levels[i]) for i in range(num + 1)]
  line = jnp.stack(way)[..., 0]  # (time, points)
  t = jnp.linspace(1, 0, num + 1)[:, None]
  straight = line[0] + (line[-1] - line[0]) * (1 - t)
  return float(jnp.abs(line - straight).max())


widths = np.geomspace(0.01, 3, 15)
off = {
  name: [straightness(w, s) for w in widths]
  for name, s in (("flow matching", linear), ("variance preserving", vp))
}
assert off["flow matching"][0] < 0.02 < 0.3 < off["variance preserving"][0]
assert off["flow matching"][-1] > 0.3
plt.figure(figsize=(5, 3))
for name, values in off.items():
  plt.semilogx(widths, values, label=name)
plt.xlabel("standard deviation of the data")
plt.ylabel("largest distance from a line in t")
plt.legend()
plt.show()

# %% [markdown]
# ## 4. What a network may predict
#
# x, eps, v, u, the score and EDM's F are rows `a x + b eps`: one 2x2 solve turns each
# into each.

# %%
lv = dfj.levels.level(flow, linear, 0.3)
lv = jax.tree.map(lambda c: jnp.full(300, c), lv)
x = law.sample(jax.random.key(1), 300)
z = dfj.levels.add_noise(x, noise, lv)
x_hat, eps_hat = law(z, lv)
targets = {
  "x": dfj.targets.x, "eps": dfj.targets.eps, "v": dfj.targets.v,
  "u": dfj.targets.u, "score": dfj.targets.score, "F": dfj.targets.F(0.5),
}  # fmt: skip
print(f"{'':6}  a        b        at t = 0.3 of flow matching")
for name, target in targets.items():
  a, b = (float(jnp.ravel(c)[0]) for c in target(lv))
  print(f"{name:6} {a:8.4f} {b:8.4f}")
  y = dfj.targets.from_x_eps(target, x_hat, eps_hat, lv)
  back = dfj.targets.to_x_eps(target, y, z, lv)
  equal(jnp.stack(back), jnp.stack([x_hat, eps_hat]))
u = dfj.targets.from_x_eps(dfj.targets.u, x_hat, eps_hat, lv)
print("u = ε̂ - x̂:", equal(u, eps_hat - x_hat))
print("score:", equal(law.score(z, lv), -eps_hat / lv.sigma[:, None]))

# %% [markdown]
# ## 5. Weightings on one axis
#
# Over log-SNR, losses that look unlike can be compared: what they minimise is
# `½ ∫ w(logsnr) E‖eps - ε̂‖² dlogsnr`. Flow matching's is that of v-prediction on a
# cosine schedule, but for a constant; SD3's logit-normal times look like EDM's.

# %%
logsnr = jnp.linspace(-10, 10, 201)
recipes = {n: dfj.objectives.make(n) for n in
           ("flow_matching", "v_diffusion", "sd3", "edm")}  # fmt: skip
log_w = {name: r.weighting(logsnr) for name, r in recipes.items()}
ratio = jnp.exp(log_w["flow_matching"] - log_w["v_diffusion"])
print("flow matching over v, cosine:", equal(ratio, jnp.pi / 2, 1e-5))
fig, ax = plt.subplots(figsize=(6, 3.2))
for name in ("sd3", "edm"):
  w = np.exp(log_w[name])
  ax.plot(logsnr, w / w.max(), label=name)
ax.set_xlabel("log-SNR")
ax.set_ylabel("weight, highest = 1")
ax.legend()
plt.show()

# %% [markdown]
# ## 6. The loss does not depend on the schedule
#
# With the weighting held, another law of the times (a schedule's, a density's) moves
# the variance of the loss and not its mean. Here a wrong denoiser, 0.9 of the exact
# one, and the mean over 4000 evenly spread quantiles of each density.


# %%
def mean_loss(density, num=4000):
  objective = recipes["sd3"].replace(density=density)
  u = (jnp.arange(num) + 0.5) / num
  logsnr = density.logsnr(u)
  terms = dfj.terms_at(
    objective, wrong, {}, jnp.tile(x[:1], (num, 1)), logsnr,
    jnp.tile(noise[:1], (num, 1)),
  )  # fmt: skip
  return float(terms.loss.mean())


def wrong(params, z, logsnr, cond):
  own = dfj.levels.at_logsnr(recipes["sd3"].scale, logsnr, flow)
  x_hat, eps_hat = law(z, own)
  return 0.9 * dfj.targets.from_x_eps(
    recipes["sd3"].target, x_hat, eps_hat, own
  )


densities = {
  "SD3's own": recipes["sd3"].density,
  "wider": dfj.densities.log_normal(0.0, 1.5),
  "times of a cosine": dfj.densities.UniformTime(cosine),
}
losses = {name: mean_loss(d) for name, d in densities.items()}
print({name: round(value, 5) for name, value in losses.items()})
first, *others = losses.values()
assert all(abs(o / first - 1) < 5e-3 for o in others), losses

# %% [markdown]
# ## 7. A DDPM step is a DDIM step twice as long, and noise again
#
# Ancestral sampling from one level to the next goes down *two* steps of log-SNR by
# DDIM and comes back one by adding noise, to the last digit.

# %%
high, mid, low = (
  jax.tree.map(lambda c: jnp.full(300, c), dfj.levels.at_logsnr(vp, l))
  for l in (-2.0, -1.0, 0.0)
)
z = dfj.levels.add_noise(x, noise, high)
xi = jax.random.normal(jax.random.key(2), z.shape)
x_hat, eps_hat = law(z, high)
# DDPM, Ho et al. eq. 6 and 7 for alpha² + sigma² = 1, from high to mid
h = 0.5  # half of the log-SNR between them
keep = (mid.sigma / high.sigma * jnp.exp(-h))[:, None]
ddpm = (
  keep * z
  + (mid.alpha * -jnp.expm1(-2 * h))[:, None] * x_hat
  + (mid.sigma * jnp.sqrt(-jnp.expm1(-2 * h)))[:, None] * xi
)
# DDIM from high to low, then back up to mid
there = dfj.levels.add_noise(x_hat, eps_hat, low)
up = mid.alpha / low.alpha
fresh = jnp.sqrt(mid.sigma**2 - (up * low.sigma) ** 2)
again = up[:, None] * there + fresh[:, None] * xi
print("DDPM = DDIM twice as far, and renoised:", equal(ddpm, again))

steps = [z, there, again]
fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharex=True, sharey=True)
titles = ("at -2", "DDIM to 0", "noise again, to -1")
for ax, points, title in zip(axes, steps, titles, strict=True):
  ax.scatter(*np.asarray(points).T, s=4)
  ax.set_title(title)
plt.show()

# %% [markdown]
# ## 8. Churn: who makes the sample
#
# A sample is a sum of all predictions and all noise draws, with weights that follow
# from the grid alone. More noise on the way, and later predictions count more.

# %%
levels = dfj.grids.uniform_t(cosine, vp, 30)
calm = dfj.contributions(dfj.solvers.ddim(levels), dfj.targets.v)
noisy = dfj.contributions(dfj.solvers.ddim(levels, eta=1.0), dfj.targets.v)
middle = lambda c: np.abs(c["kept"]) @ np.arange(30) / np.abs(c["kept"]).sum()
print(
  f"centre of the weights: {middle(calm):.1f} and {middle(noisy):.1f} of 30"
)
assert middle(noisy) > middle(calm) + 3
dfj.plots.churn(levels)

# %% [markdown]
# ## 9. From SDE to schedule and back
#
# `dz = f z dt + g dw` and (alpha, sigma) say the same, and any noise `e` on the way
# keeps the marginals.

# %%
t = jnp.linspace(0.05, 0.9, 18)
there = dfj.levels.level(cosine, vp, t)
f, g2 = dfj.sde.drift_diffusion(there)
back = dfj.sde.from_sde(
  lambda t: dfj.sde.drift_diffusion(dfj.levels.level(cosine, vp, t))[0],
  lambda t: dfj.sde.drift_diffusion(dfj.levels.level(cosine, vp, t))[1],
  t,
)
print("(alpha, sigma):", equal(jnp.stack(back), jnp.stack(
  [there.alpha, there.sigma]), 1e-8))  # fmt: skip
print("g² of a cosine:", equal(g2, jnp.pi * jnp.tan(jnp.pi * t / 2), 1e-8))
e = dfj.sde.noise_rate(there, 0.7)
print("eta:", equal(dfj.sde.stochasticity(there, e), 0.7))

# %% [markdown]
# ## 10. The lecture's side
#
# The field of the data is the mean of the fields of single examples,
# `u(z) = E[u(z | x) | z]`; conditional flow matching differs from flow matching by a
# constant, `E tr Cov(u(z | x) | z)`; velocity and score are each other's affine image.

# %%
mid = dfj.levels.level(flow, linear, 0.5)
points = law.sample(jax.random.key(3), 4000)
z = jnp.array([[0.3, 0.2]])
far = ((z - mid.alpha * points) ** 2).sum(-1) / (2 * mid.sigma**2)
weight = jax.nn.softmax(-far)  # p(x | z) of the 4000 points
single = dfj.sde.conditional_field(
  jnp.repeat(z, 4000, 0), points,
  jax.tree.map(lambda c: jnp.full(4000, c), mid),
)  # fmt: skip
empirical = dfj.closed_form.dataset(points)
one = jax.tree.map(lambda c: jnp.full(1, c), mid)
x_hat, eps_hat = empirical(z, one)
u = dfj.targets.from_x_eps(dfj.targets.u, x_hat, eps_hat, one)
print("marginal = mean of conditional:", equal(weight @ single, u[0], 1e-8))

s = empirical.score(z, one)
f, g2 = dfj.sde.drift_diffusion(mid)
print("u = f z - ½ g² score:", equal(u, f * z - 0.5 * g2 * s, 1e-8))

spread = weight @ ((single - u) ** 2).sum(-1)  # tr Cov(u(z|x) | z)
delta = mid.alpha * mid.dsigma - mid.sigma * mid.dalpha
var = jnp.trace(empirical.covariance(z, one)[0])
want = (delta / mid.sigma) ** 2 * var
print("CFM - FM, at one z:", equal(spread, want, 1e-6))

# %% [markdown]
# ## Yours to change
#
# - `law`: another mixture, or `dfj.closed_form.dataset(points)` of your points.
# - `flow` and `cosine`: any of `dfj.schedules`, or one of your own.
# - the solver of part 2: `dfj.solvers.heun`, `unipc`, … with any `coordinate`.
#
# The same with sliders: `python -m diffflow_jax.explore --out=explorer.html`.
