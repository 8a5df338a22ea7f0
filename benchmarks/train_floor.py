"""A train step of a small network over one written by hand, recipe by recipe.

  python benchmarks/train_floor.py [--out=benchmarks/results/train_floor.md]

A 2-D MLP at batch 1024, loss and gradient and SGD: `dfj.weighted_mse` against
the same loss in a few lines of jnp, each with its own draw of times. One
thread; CPU seconds, which other jobs disturb less than the wall clock; the two
alternate, and the ratio is that of the medians.
"""

import os

os.environ["XLA_FLAGS"] = (
  "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

import diffflow_jax as dfj

BATCH, ROUNDS, STEPS = 1024, 21, 20


def network(params, z, logsnr, cond=None):
  """A plain MLP of z and the level: what a first experiment uses."""
  h = jnp.concatenate([z, jnp.tanh(logsnr / 8.0)[:, None]], axis=1)
  for w, b in params[:-1]:
    h = jax.nn.silu(h @ w + b)
  w, b = params[-1]
  return h @ w + b


def initial(key, widths=(3, 64, 64, 64, 2)):
  """Its parameters."""
  shapes = list(zip(widths[:-1], widths[1:], strict=True))
  keys = jax.random.split(key, len(shapes))
  return [
    (jax.random.normal(k, shape) / shape[0] ** 0.5, jnp.zeros(shape[1]))
    for k, shape in zip(keys, shapes, strict=True)
  ]


def _cosine(t):
  """(alpha, sigma, logsnr) of t on the cosine schedule."""
  alpha, sigma = jnp.cos(0.5 * jnp.pi * t), jnp.sin(0.5 * jnp.pi * t)
  return alpha, sigma, 2.0 * jnp.log(alpha / sigma)


def eps_by_hand(apply, params, key, x):
  """DDPM's L_simple on the cosine schedule."""
  t_key, eps_key = jax.random.split(key)
  t = jax.random.uniform(t_key, x.shape[:1], minval=1e-5, maxval=1 - 1e-5)
  eps = jax.random.normal(eps_key, x.shape)
  alpha, sigma, logsnr = _cosine(t)
  z = alpha[:, None] * x + sigma[:, None] * eps
  return jnp.mean((eps - apply(params, z, logsnr, None)) ** 2)


def v_by_hand(apply, params, key, x):
  t_key, eps_key = jax.random.split(key)
  t = jax.random.uniform(t_key, x.shape[:1], minval=1e-5, maxval=1 - 1e-5)
  eps = jax.random.normal(eps_key, x.shape)
  alpha, sigma, logsnr = _cosine(t)
  z = alpha[:, None] * x + sigma[:, None] * eps
  v = alpha[:, None] * eps - sigma[:, None] * x
  return jnp.mean((v - apply(params, z, logsnr, None)) ** 2)


def flow_by_hand(apply, params, key, x):
  t_key, eps_key = jax.random.split(key)
  t = jax.random.uniform(t_key, x.shape[:1], minval=1e-5, maxval=1 - 1e-5)
  eps = jax.random.normal(eps_key, x.shape)
  z = (1 - t)[:, None] * x + t[:, None] * eps
  logsnr = 2.0 * jnp.log((1 - t) / t)
  return jnp.mean((eps - x - apply(params, z, logsnr, None)) ** 2)


def sid2_by_hand(apply, params, key, x, bias=-3.0):
  """v-prediction, sigmoid(bias - logsnr) on the eps-MSE, over p(logsnr)."""
  t_key, eps_key = jax.random.split(key)
  t = jax.random.uniform(t_key, x.shape[:1], minval=1e-5, maxval=1 - 1e-5)
  eps = jax.random.normal(eps_key, x.shape)
  alpha, sigma, logsnr = _cosine(t)
  z = alpha[:, None] * x + sigma[:, None] * eps
  v = alpha[:, None] * eps - sigma[:, None] * x
  # ‖eps - ε̂‖² = alpha² ‖v - v̂‖²; -dlogsnr/dt / 2 = (π/2)/(alpha sigma)
  factor = jax.nn.sigmoid(bias - logsnr) * 0.5 * jnp.pi * alpha / sigma
  error = ((v - apply(params, z, logsnr, None)) ** 2).mean(1)
  return jnp.mean(factor * error)


def edm_by_hand(apply, params, key, x, sigma_data=0.5):
  s_key, eps_key = jax.random.split(key)
  log_sigma = -1.2 + 1.2 * jax.random.normal(s_key, x.shape[:1])
  sigma = jnp.exp(log_sigma)[:, None]
  eps = jax.random.normal(eps_key, x.shape)
  y = x + sigma * eps
  norm = jnp.sqrt(sigma**2 + sigma_data**2)
  target = (x - sigma_data**2 / norm**2 * y) * norm / (sigma * sigma_data)
  out = apply(params, y / norm, -2.0 * log_sigma, None)
  return jnp.mean((target - out) ** 2)


def cases():
  """name -> (objective, loss by hand)."""
  v = dfj.objectives.v_diffusion()
  eps = v.replace(
    target=dfj.targets.eps, weighting=dfj.weightings.mse(v, dfj.targets.eps)
  )
  return {
    "eps": (eps, eps_by_hand),
    "v": (v, v_by_hand),
    "flow": (dfj.objectives.flow_matching(), flow_by_hand),
    "v, sigmoid weighting": (
      v.replace(weighting=dfj.weightings.Sigmoid(-3.0)),
      sid2_by_hand,
    ),
    "F of EDM": (dfj.objectives.edm(), edm_by_hand),
  }


def step_of(loss):
  """One step of SGD, as a jitted function of (params, key, x)."""

  @jax.jit
  def step(params, key, x):
    grads = jax.grad(loss)(params, key, x)
    return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)

  return step


def measure(step, params, keys, x):
  """CPU seconds a step."""
  start = time.process_time()
  for key in keys:
    params = step(params, key, x)
  jax.block_until_ready(params)
  return (time.process_time() - start) / len(keys)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--out", default=None)
  args = parser.parse_args()
  x = jnp.asarray(dfj.data.moons().batch(0, 0, BATCH)["x"], jnp.float32)
  params = initial(jax.random.key(0))
  keys = list(jax.random.split(jax.random.key(1), STEPS))
  lines = [
    "| recipe | by hand, µs | library, µs | ratio |",
    "|---|---|---|---|",
  ]
  for name, (objective, by_hand) in cases().items():
    ours = step_of(
      lambda p, k, x, o=objective: dfj.weighted_mse(
        o, network, p, k, x
      ).loss.mean()
    )
    bare = step_of(lambda p, k, x, f=by_hand: f(network, p, k, x))
    times = {"ours": [], "bare": []}
    for step in (ours, bare):
      measure(step, params, keys[:2], x)
    for _ in range(ROUNDS):
      times["bare"].append(measure(bare, params, keys, x))
      times["ours"].append(measure(ours, params, keys, x))
    hand, lib = (1e6 * statistics.median(times[k]) for k in ("bare", "ours"))
    ratio = np.median(np.divide(times["ours"], times["bare"]))
    lines.append(f"| {name} | {hand:.0f} | {lib:.0f} | {ratio:.2f} |")
    print(lines[-1], flush=True)
  if args.out:
    with open(args.out, "w") as file:
      file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
  main()
