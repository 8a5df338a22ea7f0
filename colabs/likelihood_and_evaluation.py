# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Likelihood and evaluation
#
# What a model says of data, in bits, and how good samples are, with the error of each
# number. All of it beside what is exact: on a mixture whose density is known, and with
# samples whose distance is known. About a minute on a CPU, most of it a small run's
# training at the end. You should see bounds in the order that theory gives them, and
# intervals that hold the truth about as often as they say.

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
import math
import os
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy import special

SMOKE = bool(os.environ.get("DIFFFLOW_SMOKE"))
ev, key, rng = dfj.evaluation, jax.random.key(0), np.random.default_rng(0)
law = dfj.closed_form.mixture([0.3, 0.7], [[-1, 0], [1, 1]], [0.3, 0.5])
x = law.sample(key, 20)
log_p, evaluations = dfj.adaptive.log_likelihood(law, x, rtol=1e-5, atol=1e-5)

# %% [markdown]
# ## The likelihood of a flow
#
# The probability-flow ODE carries the density along, so a denoiser *has* a likelihood.
# The mixture's is known in closed form.

# %%
data_end = dfj.levels.from_pair(1.0, 0.0)
exact = law.log_prob(x, data_end)
off = float(jnp.abs(log_p - exact).max())
print(f"off by {off:.0e} nats after {int(evaluations)} evaluations")
assert off < 2e-3

# %% [markdown]
# ## Discrete data: four bounds
#
# A density says nothing of discrete data, but bounds a probability. Below data are the
# mixture's own, rounded to bins of ¼, and the flow stops at t = 0.05, where y is x and
# noise of s = sigma/alpha. The exact answer is the mass of each bin.

# %%
means, stds, weights = np.array([-1.0, 1.5]), np.array([0.5, 0.3]), [0.4, 0.6]
smooth = dfj.closed_form.mixture(weights, means[:, None], stds)
width, t = 0.25, 0.05
s = t / (1 - t)
values = np.arange(-16, 17) * width
edges = np.append(values - width / 2, values[-1] + width / 2)
cdf = lambda std: special.ndtr((edges[:, None] - means) / std) @ weights
p, rounded = np.diff(cdf(stds)), np.diff(cdf(np.hypot(stds, s)))
entropy = -(p * np.log2(p)).sum()

index = rng.choice(len(p), 2000 if SMOKE else 20000, p=p / p.sum())
x = values[index, None].astype(np.float32)
log_density = lambda y, cond: smooth.log_prob(y, dfj.levels.from_pair(1.0, s))
schedule = dfj.schedules.LinearLogSNR(-8.0, 2 * math.log(1 / s))
big = dict(batch_size=50000)
bounds = {
  "uniform": ev.uniform_bits(log_density, x, width, key, **big),
  "importance, 8 draws": ev.uniform_bits(
    log_density, x, width, key, num_importance=8, **big
  ),
  "truncated normal": ev.truncated_normal_bits(
    log_density, x, width, s, key, **big
  ),
  "decoder": ev.decoder_bits(log_density, x, values, s, key, **big),
  "variational": ev.variational_bits(
    smooth, schedule, x, jnp.array(values, jnp.float32), key
  ),
}
print(f"entropy of the data, which no bound can be below: {entropy:.4f} bits")
for name, bits in bounds.items():
  print(f"{name:20} {bits.total}   {bits.of}")
  assert bits.total.value > entropy - 4 * bits.total.standard_error

# %% [markdown]
# The first three are bounds of *one* probability, that the model rounds to the value,
# so their excess over it is at least 0, shrinks as draws are put into the logarithm,
# and for one uniform draw is width²/24 of the Fisher information. The truncated normal
# draws from a narrower law than the density asks for, and pays. The exact part is
# known value by value, so most of the noise is taken out.

# %%
own = -np.log2(rounded[index])
excess = {}
for name in ("importance, 8 draws", "uniform", "truncated normal"):
  over = bounds[name].per_image - own
  excess[name] = over.mean(), over.std() / math.sqrt(len(over))
  print(f"{name:20} {over.mean():.5f} ± {excess[name][1]:.5f} bits over")

at = jnp.linspace(-4, 4, 4001)[:, None]
end = dfj.levels.from_pair(1.0, s)
mass, slope = jnp.exp(smooth.log_prob(at, end)), smooth.score(at, end)[:, 0]
fisher = float((mass * slope**2).sum() * (at[1, 0] - at[0, 0]))
want = width**2 / 24 * fisher / math.log(2)
print(f"width²/24 times the Fisher information: {want:.5f} bits")
means_, errors = np.array(list(excess.values())).T
assert means_[0] > -4 * errors[0]
assert means_[0] < means_[1] + 4 * math.hypot(*errors[:2])
assert means_[1] < means_[2] + 4 * math.hypot(*errors[1:])
assert abs(means_[1] - want) < 4 * errors[1] + 0.15 * want  # to first order

# %% [markdown]
# ## A model that knows the values
#
# Trained on discrete data as they are, a model's density is a comb, and the choice of
# the bound matters. Eight equally likely values are 3 bits; the width is six times s, and
# uniform noise costs 0.86 bits too many.

# %%
teeth = np.arange(8) * 0.25 - 0.875
comb, s_comb = dfj.closed_form.dataset(teeth[:, None]), 0.25 / 6
log_comb = lambda y, cond: comb.log_prob(y, dfj.levels.from_pair(1.0, s_comb))
x = rng.choice(teeth, (len(x), 1)).astype(np.float32)
three = {
  "uniform": ev.uniform_bits(log_comb, x, 0.25, key, **big),
  "truncated normal": ev.truncated_normal_bits(
    log_comb, x, 0.25, s_comb, key, **big
  ),
  "decoder": ev.decoder_bits(log_comb, x, teeth, s_comb, key, **big),
}
for name, bits in three.items():
  print(f"{name:20} {bits.total}")
for name, want in (("uniform", 3.86), ("truncated normal", 3), ("decoder", 3)):
  total = three[name].total
  assert abs(total.value - want) < 4 * total.standard_error + 0.02

# %% [markdown]
# ## How good are samples?
#
# Two sets of features, samples first. Here the reference is a mixture in eight
# dimensions, and samples come from itself, from one whose modes are narrower, and from
# one that lost a mode. The first row is what *perfect* samples get: the floor.

# %%
num = 500 if SMOKE else 2000
corners = np.eye(8)[:4] * 3
full = dfj.closed_form.mixture(np.ones(4), corners, 0.5)
sets = {
  "perfect": full,
  "narrower": full.replace(stds=0.8 * full.stds),
  "a mode lost": dfj.closed_form.mixture([1, 1, 1, 0], corners, 0.5),
}
draw = lambda law, i: np.asarray(law.sample(jax.random.key(i), num))
real, scores = draw(full, 1), {}
for i, (name, one) in enumerate(sets.items()):
  fake = draw(one, i + 2)
  prdc = ev.prdc(fake, real)
  scores[name] = {
    "Fréchet": ev.frechet(fake, real).unbiased,
    "KID": ev.kid(fake, real),
    "precision": prdc.precision,
    "recall": prdc.recall,
  }
fig, axes = plt.subplots(1, 4, figsize=(11, 2))
for ax, metric in zip(axes, scores["perfect"], strict=True):
  for y, name in enumerate(scores):
    e = scores[name][metric]
    ax.plot([e.low, e.high], [y, y], "k-", lw=1)
    ax.plot(e.value, y, "o")
  ax.set_title(metric, fontsize=9)
  ax.set_yticks(range(3), list(scores) if metric == "Fréchet" else [""] * 3)
  ax.margins(y=0.3)
plt.show()
lost, perfect = scores["a mode lost"], scores["perfect"]
assert lost["Fréchet"].low > perfect["Fréchet"].high
assert lost["KID"].value > perfect["KID"].value
lost, perfect = lost["recall"], perfect["recall"]
assert lost.value < perfect.value - 0.1  # about the quarter that is missing

# %% [markdown]
# ## Is an interval one?
#
# A 95 % interval should hold the truth in 95 of 100 repetitions. The truth of perfect
# samples is 0 if the reference is exact; `plain`, the number that papers print, is
# above it by the floor, which `frechet_floor` predicts.

# %%
d = 8
exact_reference = ev.moments(rng.normal(size=(200000, d)))
repeats = 40 if SMOKE else 200
found = [
  ev.frechet(rng.normal(size=(300, d)), exact_reference) for _ in range(repeats)
]
held = np.mean([f.unbiased.low < 0 < f.unbiased.high for f in found])
plain = np.mean([f.plain.value for f in found])
floor = ev.frechet_floor(np.eye(d), 300)
print(f"the interval holds 0 in {held:.0%} of {repeats} repetitions")
print(f"plain: {plain:.3f} on average; the floor predicts {floor:.3f}")
# four errors of a share; and what the reference's own 200,000 rows add
assert abs(held - 0.95) < 4 * math.sqrt(0.95 * 0.05 / repeats) + 0.02
assert abs(plain / floor - 1) < 0.1

# %% [markdown]
# ## A trained run
#
# `evaluate` draws with every solver that is asked for and judges by every metric; the
# command `python -m diffflow_jax.evaluate` is the same with a folder and a figure. The
# ring's density is known, so its modes and the divergence are, too
# (`mode_shares`, `kl`). Halves of the real data are the floor.

# %%
config = dfj.config("diffflow_jax/toy2d" + (":smoke" if SMOKE else ""))
config.dataset.name = "ring"
if not SMOKE:
  config.num_steps = config.sample_every = config.checkpoint_every = 1500
workdir = os.path.join(tempfile.gettempdir(), f"evaluated_{config.num_steps}")
dfj.train(config, workdir)
run = dfj.load(workdir)
num = 200 if SMOKE else 2000
report = run.evaluate(
  f"fid,precision_recall:num={num}", solvers="ddim:3,unipc:10", num_samples=num
)
rows = {"halves of the real data": report["reference"]["floor"]}
rows |= {one["sampler"]: one["numbers"] for one in report["samplers"]}
for who, numbers in rows.items():
  for name, e in numbers.items():
    said = f"{e['value']:8.4f} [{e['low']:.4f}, {e['high']:.4f}]"
    print(f"{who:24} {name:20} {said}")

# %% [markdown]
# ## Yours to change
#
# - `law`, `smooth`, `width`: where does the order of the bounds change?
# - `sets`: what does a metric *not* see? Try means that moved, or copies of `real`.
# - images: `ev.inception(FILE)` makes FID's features, `ev.dinov2`, `ev.classifier`
#   others; `run.evaluate("fid,bpd:num=64", features=..., out="eval")`.
# - compare two runs: `run.evaluate("fid", against="runs/other")`.
