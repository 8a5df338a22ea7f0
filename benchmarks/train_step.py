"""The library's train step against a hand-written minimal one.

  python benchmarks/train_step.py

Same UNet, same Adam and EMA, same flow-matching loss; the hand-written step has
no objective, no log-SNR bins, no gradient norm, no checks. Prints the ratio of
their times, the median over alternating rounds.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import optax

from diffflow_jax import data, networks
from diffflow_jax.objective import objectives
from diffflow_jax.training import ema, state as state_lib


def minimal_step(apply, tx, dataset):
  """Flow matching in a few lines: what one would write without a library."""

  def step(state, batch):
    params, average, opt_state, n = state
    key = jax.random.fold_in(jax.random.key(0), n)
    t_key, eps_key, drop_key = jax.random.split(key, 3)
    x = batch["x"].astype(jnp.float32) / 8.0 - 1.0
    drop = jax.random.bernoulli(drop_key, 0.1, batch["label"].shape)
    label = jnp.where(drop, dataset.num_classes, batch["label"])
    t = jax.random.uniform(t_key, x.shape[:1], minval=1e-6, maxval=1 - 1e-6)
    eps = jax.random.normal(eps_key, x.shape)
    w = t[:, None, None, None]
    logsnr = 2.0 * (jnp.log1p(-t) - jnp.log(t))

    def loss(params):
      u = apply(params, (1 - w) * x + w * eps, logsnr, label)
      return jnp.mean((eps - x - u) ** 2)

    grads = jax.grad(loss)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    average = optax.incremental_update(params, average, 0.01)
    return params, average, opt_state, n + 1

  return step


def main(rounds=15, steps=4, batch_size=128):
  dataset = data.digits()
  network = networks.UNet(num_classes=10)
  tx = optax.adam(1e-3)
  objective, averages = objectives.flow_matching(), ema.exponential(0.99)
  ours = state_lib.make_train_step(
    objective,
    network.apply,
    tx,
    dataset,
    averages,
    seed=0,
    label_dropout=0.1,
  )
  state = state_lib.create(objective, network, tx, dataset, averages, 0)
  copy = lambda tree: jax.tree.map(jnp.copy, tree)
  bare = copy((state.params, state.ema[0], state.opt_state, state.step))
  batch = jax.tree.map(jnp.asarray, dataset.batch(0, 0, batch_size))
  runs = {
    "library": [jax.jit(ours, donate_argnums=0), state],
    "hand-written": [
      jax.jit(minimal_step(network.apply, tx, dataset), donate_argnums=0),
      bare,
    ],
  }
  times = {name: [] for name in runs}
  for round_ in range(rounds + 1):
    for name, run in runs.items():
      start = time.perf_counter()
      for _ in range(steps):
        run[1] = run[0](run[1], batch)
      jax.block_until_ready(run[1])
      if round_:  # the first one compiles
        times[name].append((time.perf_counter() - start) / steps)
  ratios = [a / b for a, b in zip(*times.values(), strict=True)]
  for name, values in times.items():
    print(f"{name:14s} {1e3 * statistics.median(values):8.1f} ms a step")
  print(f"ratio          {statistics.median(ratios):8.3f}")
  print(f"on {jax.devices()[0].device_kind}, batch {batch_size}")


if __name__ == "__main__":
  main()
