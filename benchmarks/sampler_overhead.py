"""What a sampler costs beyond its network: ratios, interleaved, one run.

    python benchmarks/sampler_overhead.py [--quick]

Bare evaluations are a scan of `predict` alone over the same levels; stochastic
samplers are compared with evaluations and one normal draw each, by the same
per-sample keys. Each ratio is of medians over interleaved repetitions.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

import diffflow_jax as dfj
from diffflow_jax.sampling import noise
from diffflow_jax.sampling.tableau import as_pytree


def network(width, depth, dim, key):
  """A plain MLP that predicts x̂: predict(z, lv, cond)."""
  sizes = [dim, *[width] * depth, dim]
  keys = jax.random.split(key, len(sizes))
  params = [
    jax.random.normal(k, (a, b)) / np.sqrt(a)
    for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=False)
  ]

  def predict(params, z, lv, cond=None):
    h = z
    for w in params[:-1]:
      h = jax.nn.silu(h @ w)
    x_hat = h @ params[-1]
    return x_hat, (z - lv.alpha * x_hat) / lv.sigma

  return jax.tree_util.Partial(predict, params)


def unet(shape, key):
  """The network of configs/digits.py, as a flow-matching predictor."""
  net = dfj.networks.UNet()
  params = net.init(key, jnp.zeros(shape), jnp.zeros(shape[0]))
  return dfj.predictor(dfj.objectives.flow_matching(), net.apply, params)


@jax.jit(static_argnames="draws")
def bare(predict, levels, keys, z, draws):
  """The evaluations alone, each fed by the last; with one draw each."""

  def step(z, inputs):
    i, lv = inputs
    if draws:
      z = z + 1e-3 * noise.draw(keys, i, z.shape[1:], z.dtype)
    x_hat, eps_hat = predict(z, lv, None)
    return lv.alpha * x_hat + lv.sigma * eps_hat, None

  n = levels.logsnr.shape[0]
  return jax.lax.scan(step, z, (jnp.arange(n), levels))[0]


def timed(fn):
  start = time.perf_counter()
  jax.block_until_ready(fn())
  return time.perf_counter() - start


def ratio(one, two, repeats):
  """Median time of one over two, run in turns, and two's median."""
  one(), two()
  pairs = np.array([(timed(one), timed(two)) for _ in range(repeats)])
  return np.median(pairs[:, 0] / pairs[:, 1]), np.median(pairs[:, 1])


def overhead(name, predict, shape, n, repeats):
  grid = dfj.grids.uniform_t(
    dfj.schedules.Cosine(), dfj.levels.vp, n, t_end=0.01
  )
  key = jax.random.key(0)
  keys = noise.keys(key, 0, shape[0])
  z = jax.random.normal(key, shape)
  as_f32 = lambda t: jax.tree.map(lambda l: jnp.asarray(l, jnp.float32), t)
  half = dfj.grids.uniform_t(
    dfj.schedules.Cosine(), dfj.levels.vp, n // 2, t_end=0.01
  )
  tables = {
    "ddim": (dfj.solvers.ddim(grid), False),
    "heun": (dfj.solvers.heun(half), False),
    "unipc 3": (dfj.solvers.unipc(grid, 3), False),
    "ddim eta 1": (dfj.solvers.ddim(grid, 1.0), True),
    "sde_dpmpp_2m": (dfj.solvers.sde_dpmpp_2m(grid), True),
  }
  tables["ddim, padded"] = (dfj.pad(tables["ddim"][0], 2 * n, 4), False)
  predict = as_pytree(predict)
  for solver, (table, draws) in tables.items():
    levels = as_f32(jax.tree.map(lambda l: l[:n], table.levels))
    length = table.length
    table = as_f32(table.replace(length=None)).replace(length=length)
    run = lambda table=table: dfj.sample(predict, table, key, shape, z=z)
    plain = lambda levels=levels, draws=draws: bare(
      predict, levels, keys, z, draws
    )
    r, base = ratio(run, plain, repeats)
    print(
      f"{name:24s} {solver:14s} ratio {r:6.3f}   bare {1e3 * base / n:8.3f} "
      "ms an evaluation",
      flush=True,
    )


def compile_time(n, key):
  predict = network(64, 2, 2, key)
  grid = dfj.grids.uniform_t(dfj.schedules.Cosine(), dfj.levels.vp, n)
  table = dfj.solvers.dpmpp_2m(grid)
  z = jnp.zeros((16, 2))
  run = lambda: dfj.sample(predict, table, key, z.shape, z=z)
  return timed(run) - timed(run)


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--quick", action="store_true")
  quick = parser.parse_args().quick
  key = jax.random.key(1)
  print(f"device: {jax.devices()[0].device_kind}, jax {jax.__version__}")
  n, repeats = (50, 3) if quick else (250, 7)
  overhead(
    "2-D MLP, batch 1024", network(128, 3, 2, key), (1024, 2), n, repeats
  )
  big = network(1024, 4, 256, key)
  overhead("MLP 1024x4, batch 128", big, (128, 256), n, repeats)
  small = (8, 8, 8, 1)
  overhead("digits UNet, batch 8", unet(small, key), small, n, repeats)
  times = {m: [] for m in (10, 1000)}
  for _ in range(3):
    for m in times:
      jax.clear_caches()
      times[m].append(compile_time(m, key))
  first = {m: np.median(t) for m, t in times.items()}
  print(
    f"compile (first call less the second): {first[10]:.2f} s at 10 "
    f"evaluations, {first[1000]:.2f} s at 1000, "
    f"ratio {first[1000] / first[10]:.2f}"
  )


if __name__ == "__main__":
  main()
